"""What the scheduler keeps: lost drivers, time in the queue, changed limits, past usage."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NEW = ("losses", "queued_at", "waited_s", "max_concurrent")


def upgrade() -> None:
    """Columns of `sweep`, and `usage`."""
    with op.batch_alter_table("sweep", copy_from=_sweep(), recreate="auto") as sweep:
        sweep.add_column(sa.Column("losses", sa.Integer()))
        sweep.add_column(sa.Column("queued_at", sa.DateTime(timezone=True)))
        sweep.add_column(sa.Column("waited_s", sa.Double()))
        sweep.add_column(sa.Column("max_concurrent", sa.Integer()))
    op.execute("UPDATE sweep SET losses = 0, queued_at = created_at, waited_s = 0")
    with op.batch_alter_table("sweep", copy_from=_sweep(added=True), recreate="auto") as sweep:
        for name, kind in (
            ("losses", sa.Integer()),
            ("queued_at", sa.DateTime(timezone=True)),
            ("waited_s", sa.Double()),
        ):
            sweep.alter_column(name, existing_type=kind, nullable=False)
    op.create_table(
        "usage",
        sa.Column("project_id", ID, nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_usage_project_id"),
        sa.PrimaryKeyConstraint("project_id", "submitter", name="pk_usage"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Without them."""
    op.drop_table("usage")
    with op.batch_alter_table("sweep", copy_from=_sweep(added=True), recreate="auto") as sweep:
        for name in NEW:
            sweep.drop_column(name)


def _sweep(*, added: bool = False) -> sa.Table:
    """The table as it was: SQLite makes it anew for a change, and does not tell of CHECKs and AUTOINCREMENT."""
    table = sa.Table(
        "sweep",
        sa.MetaData(),
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("wish", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("goal", sa.String(16), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ray_job_id", sa.Text()),
        sa.Column("mlflow_run_id", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_sweep_project_id"),
        sa.CheckConstraint(
            "state IN ('queued', 'starting', 'running', 'paused', 'succeeded', 'failed', 'cancelled')",
            name="ck_sweep_state",
        ),
        sa.CheckConstraint("wish IN ('run', 'pause', 'cancel')", name="ck_sweep_wish"),
        sa.CheckConstraint("goal IN ('minimize', 'maximize')", name="ck_sweep_goal"),
        sa.PrimaryKeyConstraint("id", name="pk_sweep"),
        sa.Index("ix_sweep_name", "name"),
        sa.Index("ix_sweep_project_id", "project_id"),
        sa.Index("ix_sweep_state", "state"),
        sqlite_autoincrement=True,
    )
    if added:
        table.append_column(sa.Column("losses", sa.Integer()))
        table.append_column(sa.Column("queued_at", sa.DateTime(timezone=True)))
        table.append_column(sa.Column("waited_s", sa.Double()))
        table.append_column(sa.Column("max_concurrent", sa.Integer()))
    return table
