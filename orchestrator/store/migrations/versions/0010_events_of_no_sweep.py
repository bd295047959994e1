"""The audit log keeps what is done with tokens and nodes, too: events of no sweep."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """`event.sweep_id` may be NULL."""
    _alter(nullable=True)


def downgrade() -> None:
    """Without these events: older code has no place for them."""
    op.execute("DELETE FROM event WHERE sweep_id IS NULL")
    _alter(nullable=False)


def _alter(*, nullable: bool) -> None:
    newest = None
    if op.get_bind().dialect.name == "sqlite":
        newest = op.get_bind().scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'event'"))
    with op.batch_alter_table("event", copy_from=_event(nullable=not nullable), recreate="auto") as event:
        event.alter_column("sweep_id", existing_type=ID, nullable=nullable)
    if newest is not None:
        # A table made anew counts on from its rows, and a bookmark may stand after the last of them
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'event'")
        op.execute(f"INSERT INTO sqlite_sequence (name, seq) VALUES ('event', {newest:d})")


def _event(*, nullable: bool) -> sa.Table:
    """The table as it was: SQLite makes it anew for a change, and does not tell of AUTOINCREMENT."""
    table = sa.Table(
        "event",
        sa.MetaData(),
        sa.Column("id", ID, nullable=False),
        sa.Column("sweep_id", ID, nullable=nullable),
        sa.Column("trial_id", ID),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name="fk_event_sweep_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_event_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sqlite_autoincrement=True,
    )
    sa.Index("ix_event_sweep_id", table.c.sweep_id)
    return table
