"""Tables, indexes, and the CHECKs made from the enums. The migrations must come out the same; a test compares them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from orchestrator.access import Role
from orchestrator.lifecycle import SweepState, TrialState, Wish
from orchestrator.records import Topic


class Goal(StrEnum):
    """Which end of a sweep's metric is the good one."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class UtcTime(sa.TypeDecorator[datetime]):
    """A point in time: timestamptz on PostgreSQL, UTC text on SQLite. Takes and gives aware datetimes alone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Raises ValueError for a datetime without a time zone, which would mean a different time on each machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"times must have a time zone; got {value!r}, use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """UTC, whatever time zone the connection is set to."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(sa.TypeDecorator[Any]):
    """JSON kept as text: it gives back the same key order and the infinities, which PostgreSQL's own types refuse."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str:
        """ASCII, so that NUL and lone surrogates travel escaped."""
        return json.dumps(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """The data that went in; tuples come back as lists."""
        return None if value is None else json.loads(value)


def storable(text: str) -> str:
    """The text with what databases refuse replaced by a visible sign."""
    return text.replace("\0", "\u2400").encode("utf-8", "replace").decode("utf-8")


class Prose(sa.TypeDecorator[str]):
    """Text from anywhere, such as an exception's message, made fit for every database: no NUL, no lone surrogates."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """The text with what cannot be stored replaced by a visible sign."""
        return None if value is None else storable(value)


def _choice(column: str, kind: type[StrEnum]) -> sa.Column[str]:
    values = sa.Enum(
        kind,
        name=column,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )
    return sa.Column(column, values, nullable=False)


# SQLite numbers rows by itself only where the type is exactly INTEGER.
Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# AUTOINCREMENT throughout: without it SQLite gives the number of a deleted row to the next one, and artifact
# directories, acknowledgements of outbox items and links in people's notes go by number.
project = sa.Table(
    "project",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", Prose, nullable=False, unique=True),
    sqlite_autoincrement=True,
)

sweep = sa.Table(
    "sweep",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("project_id", sa.ForeignKey("project.id"), nullable=False, index=True),
    sa.Column("name", Prose, nullable=False, index=True),
    sa.Column("submitter", Prose, nullable=False),
    _choice("state", SweepState),
    sa.Column("version", sa.BigInteger, nullable=False),
    _choice("wish", Wish),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("metric", Prose, nullable=False),
    _choice("goal", Goal),
    sa.Column("spec", Json, nullable=False),
    sa.Column("source", Prose, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("reason", Prose, nullable=False),
    sa.Column("ray_job_id", sa.Text),
    sa.Column("mlflow_run_id", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("started_at", UtcTime),
    sa.Column("ended_at", UtcTime),
    sa.Column("losses", sa.Integer, nullable=False),
    sa.Column("queued_at", UtcTime, nullable=False),
    sa.Column("waited_s", sa.Double, nullable=False),
    sa.Column("max_concurrent", sa.Integer),
    sa.Index(None, "state"),
    sqlite_autoincrement=True,
)

# share: average share of the pool held lately, as it was at that time.
usage = sa.Table(
    "usage",
    metadata,
    sa.Column("project_id", sa.ForeignKey("project.id"), primary_key=True),
    sa.Column("submitter", Prose, primary_key=True),
    sa.Column("share", sa.Double, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)

# number: fences writes; renewals: by which others see that the holder lives; renewed_at: for people.
lease = sa.Table(
    "lease",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("renewals", sa.BigInteger, nullable=False),
    sa.Column("renewed_at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)

trial = sa.Table(
    "trial",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("sweep_id", sa.ForeignKey("sweep.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    _choice("state", TrialState),
    sa.Column("config", Json, nullable=False),
    sa.Column("config_hash", sa.Text, nullable=False, index=True),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("step_attempt", sa.Integer, nullable=False),
    sa.Column("checkpoint_path", Prose),
    sa.Column("mlflow_run_id", sa.Text),
    sa.Column("params_count", sa.BigInteger),
    sa.Column("active_params", sa.BigInteger),
    sa.Column("flops_per_token", sa.Double),
    sa.Column("reason", Prose, nullable=False),
    sa.Column("started_at", UtcTime),
    sa.Column("ended_at", UtcTime),
    sa.Column("identity", sa.Text, index=True),
    sa.Column("parent_trial_id", sa.ForeignKey("trial.id", ondelete="SET NULL"), index=True),
    sa.Column("parent_step", sa.BigInteger),
    sa.Column("shared_from", sa.ForeignKey("trial.id", ondelete="SET NULL"), index=True),
    sa.Column("score", sa.Double),
    sa.UniqueConstraint("sweep_id", "number"),
    sa.Index(None, "sweep_id", "state"),
    sqlite_autoincrement=True,
)

# What people want of a trial that runs; its driver takes it up at the next report.
trial_wish = sa.Table(
    "trial_wish",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    _choice("wish", Wish),
    sa.Column("reason", Prose, nullable=False),
    sqlite_with_rowid=False,
)

# Nodes on which nothing is to run any more, by the cluster's own ids.
drained = sa.Table(
    "drained",
    metadata,
    sa.Column("node_id", sa.Text, primary_key=True),
    sa.Column("by", Prose, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)

# changed: JSON, name to [before, after].
perturbation = sa.Table(
    "perturbation",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("parent_trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), nullable=False),
    sa.Column("parent_step", sa.BigInteger, nullable=False),
    sa.Column("changed", Json, nullable=False),
    sqlite_with_rowid=False,
)

# The one trial whose result stands for an identity in a project.
result = sa.Table(
    "result",
    metadata,
    sa.Column("project_id", sa.ForeignKey("project.id"), primary_key=True),
    sa.Column("identity", sa.Text, primary_key=True),
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), nullable=False, unique=True),
    sqlite_with_rowid=False,
)

# text holds a string as it is and any other value as JSON (`is_text` tells which); number serves comparisons.
trial_param = sa.Table(
    "trial_param",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", Prose, primary_key=True),
    sa.Column("is_text", sa.Boolean, nullable=False),
    sa.Column("text", Prose, nullable=False),
    sa.Column("number", sa.Double),
    sa.Index(None, "name", "number"),
    sqlite_with_rowid=False,
)

trial_metric = sa.Table(
    "trial_metric",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", Prose, primary_key=True),
    sa.Column("last", sa.Double, nullable=False),
    sa.Column("last_attempt", sa.Integer, nullable=False),
    sa.Column("last_step", sa.BigInteger, nullable=False),
    sa.Column("best", sa.Double, nullable=False),
    sa.Column("best_step", sa.BigInteger, nullable=False),
    sa.Index(None, "name", "best"),
    sqlite_with_rowid=False,
)

# The key's order is that of reading a curve: one trial, one name.
metric_point = sa.Table(
    "metric_point",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", Prose, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)

# sweep_id: none where it was done with a token or a node.
event = sa.Table(
    "event",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("sweep_id", sa.ForeignKey("sweep.id", ondelete="CASCADE"), index=True),
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE")),
    sa.Column("actor", Prose, nullable=False),
    sa.Column("what", Prose, nullable=False),
    sa.Column("reason", Prose, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sqlite_autoincrement=True,
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _choice("topic", Topic),
    sa.Column("sweep_id", sa.ForeignKey("sweep.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE")),
    sa.Column("payload", Json, nullable=False),
    sqlite_autoincrement=True,
)

# name: one token of a name at a time is in force. project: by name, for it may get its first sweep from this token.
token = sa.Table(
    "token",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", Prose, nullable=False),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    _choice("role", Role),
    sa.Column("project", Prose),
    sa.Column("created_by", Prose, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("revoked_at", UtcTime),
    sa.Index(
        "uq_token_name",
        "name",
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)

submission = sa.Table(
    "submission",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("sweep_id", sa.ForeignKey("sweep.id", ondelete="CASCADE"), nullable=False, index=True),
    sqlite_with_rowid=False,
)

# How far a reader of the audit log has come.
bookmark = sa.Table(
    "bookmark",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("event_id", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Webhook calls that have yet to arrive.
delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("sweep_id", sa.ForeignKey("sweep.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("url", Prose, nullable=False),
    sa.Column("payload", Json, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due_at", UtcTime, nullable=False, index=True),
    sqlite_autoincrement=True,
)
