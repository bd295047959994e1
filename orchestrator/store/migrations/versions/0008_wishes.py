"""What people want of single trials, and nodes that are to be left."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """`trial_wish` and `drained`."""
    op.create_table(
        "trial_wish",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("wish", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint("wish IN ('run', 'pause', 'cancel')", name="ck_trial_wish_wish"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_trial_wish_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", name="pk_trial_wish"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "drained",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_drained"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Without them. Older code takes a paused trial for one that its driver left."""
    op.drop_table("drained")
    op.drop_table("trial_wish")
