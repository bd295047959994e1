"""What a trial is and where it comes from: identity, parent checkpoint, and the trial that ran in its stead."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NEW = ("identity", "parent_trial_id", "shared_from")


def upgrade() -> None:
    """Columns of `trial`, and `result`."""
    with op.batch_alter_table("trial", copy_from=_trial(), recreate="auto") as trial:
        trial.add_column(sa.Column("identity", sa.Text()))
        trial.add_column(sa.Column("parent_trial_id", ID))
        trial.add_column(sa.Column("parent_step", sa.BigInteger()))
        trial.add_column(sa.Column("shared_from", ID))
        for name in ("parent_trial_id", "shared_from"):
            trial.create_foreign_key(f"fk_trial_{name}", "trial", [name], ["id"], ondelete="SET NULL")
    for name in NEW:
        op.create_index(f"ix_trial_{name}", "trial", [name])
    op.create_table(
        "result",
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_result_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("identity", name="pk_result"),
        sa.UniqueConstraint("trial_id", name="uq_result_trial_id"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Without them."""
    op.drop_table("result")
    for name in NEW:
        op.drop_index(f"ix_trial_{name}", "trial")
    with op.batch_alter_table("trial", copy_from=_trial(added=True), recreate="auto") as trial:
        for name in ("parent_trial_id", "shared_from"):
            trial.drop_constraint(f"fk_trial_{name}", type_="foreignkey")
        for name in (*NEW, "parent_step"):
            trial.drop_column(name)


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
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name="fk_trial_sweep_id", ondelete="CASCADE"),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'paused', 'succeeded', 'stopped', 'failed', 'cancelled')",
            name="ck_trial_state",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trial"),
        sa.UniqueConstraint("sweep_id", "number", name="uq_trial_sweep_id_number"),
        sa.Index("ix_trial_config_hash", "config_hash"),
        sa.Index("ix_trial_sweep_id_state", "sweep_id", "state"),
        sqlite_autoincrement=True,
    )
    if added:
        table.append_column(sa.Column("identity", sa.Text()))
        table.append_column(sa.Column("parent_trial_id", ID))
        table.append_column(sa.Column("parent_step", sa.BigInteger()))
        table.append_column(sa.Column("shared_from", ID))
        for name in ("parent_trial_id", "shared_from"):
            table.append_constraint(
                sa.ForeignKeyConstraint([name], ["trial.id"], name=f"fk_trial_{name}", ondelete="SET NULL")
            )
    return table
