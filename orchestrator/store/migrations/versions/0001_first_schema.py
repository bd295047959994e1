"""Sweeps, trials, their parameters, metrics and curves, the audit log and the outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """The first schema."""
    op.create_table(
        "project",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_project"),
        sa.UniqueConstraint("name", name="uq_project_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "sweep",
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
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sweep_name", "sweep", ["name"])
    op.create_index("ix_sweep_project_id", "sweep", ["project_id"])
    op.create_index("ix_sweep_state", "sweep", ["state"])
    op.create_table(
        "trial",
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
        sqlite_autoincrement=True,
    )
    op.create_index("ix_trial_config_hash", "trial", ["config_hash"])
    op.create_index("ix_trial_sweep_id_state", "trial", ["sweep_id", "state"])
    op.create_table(
        "event",
        sa.Column("id", ID, nullable=False),
        sa.Column("sweep_id", ID, nullable=False),
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
    op.create_index("ix_event_sweep_id", "event", ["sweep_id"])
    op.create_table(
        "metric_point",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_metric_point_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "name", "attempt", "step", name="pk_metric_point"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outbox",
        sa.Column("id", ID, nullable=False),
        sa.Column("topic", sa.String(16), nullable=False),
        sa.Column("sweep_id", ID, nullable=False),
        sa.Column("trial_id", ID),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name="fk_outbox_sweep_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_outbox_trial_id", ondelete="CASCADE"),
        sa.CheckConstraint(
            "topic IN ('sweep_started', 'trial_started', 'report', 'trial_ended', 'sweep_ended')",
            name="ck_outbox_topic",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_sweep_id", "outbox", ["sweep_id"])
    op.create_table(
        "trial_metric",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last", sa.Double(), nullable=False),
        sa.Column("last_attempt", sa.Integer(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("best", sa.Double(), nullable=False),
        sa.Column("best_step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_trial_metric_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "name", name="pk_trial_metric"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trial_metric_name_best", "trial_metric", ["name", "best"])
    op.create_table(
        "trial_param",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_text", sa.Boolean(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("number", sa.Double()),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_trial_param_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "name", name="pk_trial_param"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trial_param_name_number", "trial_param", ["name", "number"])


def downgrade() -> None:
    """Back to an empty database."""
    for table in ("trial_param", "trial_metric", "outbox", "metric_point", "event", "trial", "sweep", "project"):
        op.drop_table(table)
