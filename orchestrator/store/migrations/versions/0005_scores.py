"""What a trial's whole curve is worth."""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """A column of `trial`. So far the last value of a curve was what counted."""
    with op.batch_alter_table("trial", copy_from=_trial(), recreate=_anew()) as trial:
        trial.add_column(sa.Column("score", sa.Double()))
    op.execute(
        "UPDATE trial SET score = (SELECT trial_metric.last FROM trial_metric, sweep WHERE sweep.id = trial.sweep_id "
        "AND trial_metric.trial_id = trial.id AND trial_metric.name = sweep.metric)"
    )


def downgrade() -> None:
    """Without it."""
    with op.batch_alter_table("trial", copy_from=_trial(added=True), recreate="auto") as trial:
        trial.drop_column("score")


def _anew() -> Literal["always", "auto"]:
    """Adding a column would leave the text of SQLite's own statement in another form than that of a new database."""
    return "always" if op.get_bind().dialect.name == "sqlite" else "auto"


def _trial(*, added: bool = False) -> sa.Table:
    """The table as it was: SQLite makes it anew for a change, and does not tell of CHECKs and AUTOINCREMENT."""
    table = sa.Table(
        "trial",
        sa.MetaData(),
        sa.Column("id", ID, nullable=False),
        sa.Column("sweep_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("config_hash", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("step_attempt", sa.Integer(), nullable=False),
        sa.Column("checkpoint_path", sa.Text()),
        sa.Column("mlflow_run_id", sa.Text()),
        sa.Column("params_count", sa.BigInteger()),
        sa.Column("active_params", sa.BigInteger()),
        sa.Column("flops_per_token", sa.Double()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("identity", sa.Text()),
        sa.Column("parent_trial_id", ID),
        sa.Column("parent_step", sa.BigInteger()),
        sa.Column("shared_from", ID),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name="fk_trial_sweep_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["parent_trial_id"], ["trial.id"], name="fk_trial_parent_trial_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["shared_from"], ["trial.id"], name="fk_trial_shared_from", ondelete="SET NULL"),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'paused', 'succeeded', 'stopped', 'failed', 'cancelled')",
            name="ck_trial_state",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trial"),
        sa.UniqueConstraint("sweep_id", "number", name="uq_trial_sweep_id_number"),
        sa.Index("ix_trial_config_hash", "config_hash"),
        sa.Index("ix_trial_sweep_id_state", "sweep_id", "state"),
        sa.Index("ix_trial_identity", "identity"),
        sa.Index("ix_trial_parent_trial_id", "parent_trial_id"),
        sa.Index("ix_trial_shared_from", "shared_from"),
        sqlite_autoincrement=True,
    )
    if added:
        table.append_column(sa.Column("score", sa.Double()))
    return table
