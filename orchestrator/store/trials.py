"""Every SQL statement on trials and their reports; one method, one transaction."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from orchestrator import health
from orchestrator.errors import IllegalMove, NotFound
from orchestrator.lifecycle import TRIAL_ENDS, WISHED, Actor, TrialState, Wish, check_trial_move
from orchestrator.records import Facts, Healthy, NewTrial, Perturbation, Report, Scalar, Topic, Trial, Wished
from orchestrator.store import audit
from orchestrator.store import schema as t
from orchestrator.store.bulk import insert_many, insert_new, insert_rows
from orchestrator.store.database import AnyRow, Database, insert, is_id
from orchestrator.store.held import held_s
from orchestrator.store.perturbations import by_trial, insert_perturbation, perturbations_of
from orchestrator.store.scores import merged_curve, score_until, update_scores
from orchestrator.store.summaries import summarise
from orchestrator.store.telling import report_items

NAMES_A_QUERY = 5000  # SQLite takes 32,766 values in one statement
_ADVANCE = (
    sa.update(t.trial)
    .where(
        t.trial.c.id == sa.bindparam("of"),
        sa.tuple_(t.trial.c.step_attempt, t.trial.c.step) < sa.tuple_(sa.bindparam("attempt_"), sa.bindparam("step_")),
    )
    .values(step_attempt=sa.bindparam("attempt_"), step=sa.bindparam("step_"))
)
OPEN = tuple(state for state in TrialState if state not in TRIAL_ENDS)


class SqlTrials:
    """`ports.TrialStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def trial(self, trial_id: int) -> Trial:
        """Raises NotFound."""
        with self._database.read() as connection:
            return _load_one(connection, trial_id)

    def trials(self, sweep_id: int) -> list[Trial]:
        """In order of number."""
        with self._database.read() as connection:
            found = load_trials(connection, sa.select(t.trial.c.id).where(t.trial.c.sweep_id == sweep_id))
        return sorted(found, key=lambda trial: trial.number)

    def children(self, trial_id: int) -> list[int]:
        """Trials that start from a checkpoint of this one, oldest first."""
        query = sa.select(t.trial.c.id).where(t.trial.c.parent_trial_id == trial_id).order_by(t.trial.c.id)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def add_trials(self, sweep_id: int, trials: Sequence[NewTrial], *, now: datetime) -> list[Trial]:
        """Record trials that a searcher proposed; a number that exists already is returned as it is."""
        numbers = [trial.number for trial in trials]
        with self._database.write() as connection:
            _expect_sweep(connection, sweep_id)
            added = sorted(number for _, number in insert_trials(connection, [(sweep_id, trials)]))
            if added:
                what = f"{len(added)} trials proposed" if len(added) > 1 else f"trial {added[0]} proposed"
                audit.write_events(
                    connection, [audit.event(sweep_id, Actor.DRIVER, what, reason="by the searcher", now=now)]
                )
            ids = sa.select(t.trial.c.id).where(t.trial.c.sweep_id == sweep_id, t.trial.c.number.in_(numbers))
            by_number = {trial.number: trial for trial in load_trials(connection, ids)}
        return [by_number[number] for number in numbers]

    def requeue_trials(self, sweep_id: int, *, reason: str, now: datetime) -> list[Trial]:
        """What a new driver does first: every RUNNING trial becomes PENDING again, or what a person wished of it.

        Returns all open trials but those that are PAUSED.
        """
        with self._database.write() as connection:
            _expect_sweep(connection, sweep_id)
            audit.write_events(connection, put_back(connection, sweep_id, actor=Actor.DRIVER, reason=reason, now=now))
            ids = sa.select(t.trial.c.id).where(t.trial.c.sweep_id == sweep_id, t.trial.c.state == TrialState.PENDING)
            return sorted(load_trials(connection, ids), key=lambda trial: trial.number)

    def start_trial(self, trial_id: int, *, now: datetime) -> Trial:
        """PENDING -> RUNNING, attempt + 1, with its event and outbox item."""
        with self._database.write() as connection:
            row = _lock_trial(connection, trial_id)
            events = move_trials(
                connection, [row], TrialState.RUNNING, actor=Actor.DRIVER, reason="", now=now, attempt=row.attempt + 1
            )
            started = audit.item(
                Topic.TRIAL_STARTED, row.sweep_id, trial_id, attempt=row.attempt + 1, at=now.isoformat()
            )
            audit.write_outbox(connection, [started])
            audit.write_events(connection, events)
            return _load_one(connection, trial_id)

    def results(self, config_hashes: Sequence[str], *, project: str) -> Mapping[str, int]:
        """By identity, the trial whose result stands for it in a project; of trials of these configurations."""
        found: dict[str, int] = {}
        with self._database.read() as connection:
            for start in range(0, len(config_hashes), NAMES_A_QUERY):
                some = config_hashes[start : start + NAMES_A_QUERY]
                query = (
                    sa.select(t.result)
                    .join(t.trial)
                    .join(t.project)
                    .where(t.trial.c.config_hash.in_(some), t.project.c.name == project)
                )
                found |= {row.identity: row.trial_id for row in connection.execute(query)}
        return found

    def record(self, reports: Sequence[Report], *, facts: Mapping[int, Facts] | None = None) -> None:
        """Upsert reports by (trial, attempt, step), their summaries, outbox items and alarms, in one transaction.

        Recording a report again changes nothing; the outbox leaves out what an earlier attempt said of the same step.
        facts: by trial, written in the same transaction. An alarm that a report begins or ends becomes an event.
        Raises ValueError for a metric that is not finite, NotFound for a trial that does not exist.
        """
        facts = facts or {}
        if not reports and not facts:
            return
        _expect_finite(reports)
        with self._database.write() as connection:
            sweeps = _sweeps_of(connection, {report.trial_id for report in reports} | set(facts))
            fresh = _insert_points(connection, reports)
            alarms = _alarms(connection, fresh, sweeps)
            summarise(connection, fresh, sweeps)
            update_scores(connection, fresh, sweeps)
            _advance(connection, reports)
            for trial_id, values in sorted(facts.items()):
                connection.execute(sa.update(t.trial).where(t.trial.c.id == trial_id).values(dict(values)))
            audit.write_outbox(connection, list(report_items(connection, fresh, sweeps)))
            audit.write_events(connection, alarms)

    def end_trial(
        self,
        trial_id: int,
        state: TrialState,
        *,
        reason: str,
        now: datetime,
        checkpoint_path: str | None = None,
        own_failure: bool = False,
        healthy: Healthy | None = None,
        attempt: int | None = None,
    ) -> Trial:
        """Move a trial to `state`: an end, PENDING for another attempt, or PAUSED; with its event and outbox item.

        own_failure adds one to `failures`. healthy: what alone counts of its curve. attempt: the one that ends; a
        driver that another has followed ends nothing of that one's. Raises NotFound, IllegalMove.
        """
        if state is TrialState.RUNNING:
            raise IllegalMove(f"end_trial does not move a trial to {state}")
        with self._database.write() as connection:
            row = _lock_trial(connection, trial_id)
            if attempt is not None and row.attempt != attempt:
                raise IllegalMove(f"trial {trial_id} is in attempt {row.attempt}; what ended was its attempt {attempt}")
            changes: dict[str, Any] = {"failures": row.failures + own_failure}
            if checkpoint_path is not None:
                changes["checkpoint_path"] = checkpoint_path
            if healthy is not None:
                changes["score"] = score_until(connection, trial_id, healthy.until)
            events = move_trials(connection, [row], state, actor=Actor.DRIVER, reason=reason, now=now, **changes)
            if state is TrialState.SUCCEEDED and row.identity is not None:
                _stand(connection, row)
            if state in TRIAL_ENDS:
                audit.write_outbox(connection, [ended_item(row, state, reason=reason, now=now)])
            audit.write_events(connection, events)
            return _load_one(connection, trial_id)

    def held_s(self, sweep_id: int) -> float:
        """Seconds for which the sweep's trials held their places, added up over all attempts that are over."""
        with self._database.read() as connection:
            return held_s(connection, sweep_id)

    def adopt_trial(self, trial_id: int, *, parent_trial_id: int, parent_step: int) -> Trial:
        """Write what a trial starts from. Raises NotFound."""
        values = {"parent_trial_id": parent_trial_id, "parent_step": parent_step}
        with self._database.write() as connection:
            connection.execute(sa.update(t.trial).where(t.trial.c.id == trial_id).values(values))
            return _load_one(connection, trial_id)

    def note(self, trial_id: int, what: str, *, reason: str, now: datetime) -> None:
        """Write an event of a trial that moves nothing. Raises NotFound."""
        with self._database.write() as connection:
            sweep_id = _lock_trial(connection, trial_id).sweep_id
            noted = audit.event(sweep_id, Actor.DRIVER, what, reason=reason, now=now, trial_id=trial_id)
            audit.write_events(connection, [noted])

    def perturb_trial(
        self,
        trial_id: int,
        perturbation: Perturbation,
        *,
        config: Mapping[str, Any],
        params: Mapping[str, Scalar],
        reason: str,
        now: datetime,
    ) -> Trial:
        """RUNNING -> PENDING with another configuration, which is nothing that other sweeps may share.

        Raises NotFound, IllegalMove.
        """
        with self._database.write() as connection:
            row = _lock_trial(connection, trial_id)
            changes = {"config": dict(config), "identity": None}
            events = move_trials(
                connection, [row], TrialState.PENDING, actor=Actor.DRIVER, reason=reason, now=now, **changes
            )
            insert_perturbation(connection, trial_id, perturbation)
            connection.execute(sa.delete(t.trial_param).where(t.trial_param.c.trial_id == trial_id))
            _insert_params(connection, {trial_id: params})
            audit.write_events(connection, events)
            return _load_one(connection, trial_id)

    def wish(self, trial_id: int, wish: Wish, *, user: str, reason: str, now: datetime) -> Trial:
        """What a person wants of a trial: at once where it does not run, and a word to its driver where it does.

        A trial that has ended stays as it is, and so does one of which that is wished already. Raises NotFound.
        """
        with self._database.write() as connection:
            row = _lock_trial(connection, trial_id)
            if row.state is TrialState.RUNNING:
                events = _wish_of_running(connection, row, wish, user=user, reason=reason, now=now)
            elif row.state in (*TRIAL_ENDS, WISHED[wish]):
                events = []
            else:
                events = move_trials(connection, [row], WISHED[wish], actor=Actor.USER, reason=reason, now=now)
                if WISHED[wish] in TRIAL_ENDS and row.attempt:
                    item = ended_item(row, WISHED[wish], reason=reason, now=now)
                    audit.write_outbox(connection, [item])
            audit.write_events(connection, [event | {"actor": user} for event in events])
            return _load_one(connection, trial_id)

    def wishes(self, sweep_id: int) -> Mapping[int, Wished]:
        """By trial, what people want of those that run; nothing of those that are just to run."""
        with self._database.read() as connection:
            rows = connection.execute(_wishes(sweep_id))
            return {row.trial_id: Wished(wish=row.wish, reason=row.reason) for row in rows}

    def waiting(self, sweep_id: int) -> set[int]:
        """Trials that are PENDING."""
        c = t.trial.c
        query = sa.select(c.id).where(c.sweep_id == sweep_id, c.state == TrialState.PENDING)
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def curve(self, trial_id: int, metric: str, *, attempts: range | None = None) -> list[tuple[int, float]]:
        """(step, value) of the trial's curve, or of some attempts alone; where they overlap, the latest one's value."""
        with self._database.read() as connection:
            return merged_curve(connection, trial_id, metric, attempts)


def insert_trials(
    connection: sa.Connection, planned: Sequence[tuple[int, Sequence[NewTrial]]]
) -> dict[tuple[int, int], int]:
    """Insert PENDING trials, each sweep's own, whose numbers are new in it. Returns ids by (sweep, number)."""
    rows = [_trial_row(sweep_id, trial) for sweep_id, trials in planned for trial in trials]
    numbers = insert_many(connection, t.trial, rows, unless=("sweep_id", "number"))
    ids = {(row["sweep_id"], row["number"]): id for row, id in zip(rows, numbers, strict=True) if id is not None}
    _insert_params(
        connection,
        {
            ids[sweep_id, trial.number]: trial.params
            for sweep_id, trials in planned
            for trial in trials
            if (sweep_id, trial.number) in ids
        },
    )
    return ids


def planned_trial(trial_id: int, sweep_id: int, trial: NewTrial) -> Trial:
    """A trial that was just inserted, as it would be read."""
    return Trial(
        id=trial_id,
        sweep_id=sweep_id,
        number=trial.number,
        state=TrialState.PENDING,
        config=trial.config,
        config_hash=trial.config_hash,
        seed=trial.seed,
        params={
            name: t.storable(value) if isinstance(value, str) else value for name, value in sorted(trial.params.items())
        },
        attempt=0,
        failures=0,
        step=0,
        metrics={},
        best=None,
        best_step=None,
        checkpoint_path=None,
        mlflow_run_id=None,
        params_count=None,
        active_params=None,
        flops_per_token=None,
        reason="",
        started_at=None,
        ended_at=None,
        identity=trial.identity,
        parent_trial_id=trial.parent_trial_id,
        parent_step=trial.parent_step,
        shared_from=None,
        score=None,
    )


def _insert_params(connection: sa.Connection, params: Mapping[int, Mapping[str, Scalar]]) -> None:
    rows = [
        {"trial_id": trial_id, "name": name, **_param_value(value)}
        for trial_id, values in params.items()
        for name, value in values.items()
    ]
    insert_rows(connection, t.trial_param, rows)


def load_trials(connection: sa.Connection, ids: sa.Select[tuple[int]]) -> list[Trial]:
    """The trials that a subquery selects, with what belongs to them, in no promised order: four statements in all."""
    return _loaded(connection, _Loading.of(ids))


class _Loading(NamedTuple):
    """Statements that read trials and what belongs to them."""

    trials: sa.Select[Any]
    params: sa.Select[Any]
    metrics: sa.Select[Any]
    perturbations: sa.Select[Any]

    @classmethod
    def of(cls, ids: sa.Select[tuple[int]]) -> _Loading:
        param, metric = t.trial_param, t.trial_metric
        return cls(
            trials=sa.select(t.trial, t.sweep.c.metric.label("ranking")).join(t.sweep).where(t.trial.c.id.in_(ids)),
            params=sa.select(param).where(param.c.trial_id.in_(ids)).order_by(param.c.name),
            metrics=sa.select(metric).where(metric.c.trial_id.in_(ids)).order_by(metric.c.name),
            perturbations=perturbations_of(ids),
        )


# Put together once: a driver reads one trial at each start and end, and to build these took longer than to run them
_ONE = _Loading.of(sa.select(t.trial.c.id).where(t.trial.c.id == sa.bindparam("trial_id")))
_LOCKED = sa.select(t.trial).where(t.trial.c.id == sa.bindparam("trial_id")).with_for_update(key_share=True)


def _loaded(connection: sa.Connection, loading: _Loading, **values: Any) -> list[Trial]:
    rows = connection.execute(loading.trials, values).all()
    params: dict[int, dict[str, Scalar]] = defaultdict(dict)
    for row in connection.execute(loading.params, values):
        params[row.trial_id][row.name] = row.text if row.is_text else json.loads(row.text)
    metrics: dict[int, dict[str, AnyRow]] = defaultdict(dict)
    for row in connection.execute(loading.metrics, values):
        metrics[row.trial_id][row.name] = row
    perturbations = by_trial(connection.execute(loading.perturbations, values))
    return [_trial(row, params[row.id], metrics[row.id], perturbations.get(row.id, ())) for row in rows]


def lock_trials(connection: sa.Connection, sweep_id: int, states: Sequence[TrialState]) -> Sequence[AnyRow]:
    """The sweep's trials in these states; nobody else can move them before this transaction ends."""
    query = sa.select(t.trial).where(t.trial.c.sweep_id == sweep_id, t.trial.c.state.in_(states))
    return connection.execute(query.order_by(t.trial.c.id).with_for_update(key_share=True)).all()


def move_trials(
    connection: sa.Connection,
    rows: Sequence[AnyRow],
    to: TrialState,
    *,
    actor: Actor,
    reason: str,
    now: datetime,
    **changes: Any,
) -> list[dict[str, Any]]:
    """Move locked trials, writing `changes` into each. Returns the events to write. Raises IllegalMove."""
    for row in rows:
        check_trial_move(row.state, to, actor)
    values = {"state": to, "reason": reason, "ended_at": now if to in TRIAL_ENDS else None, **changes}
    if to is TrialState.RUNNING:
        values["started_at"] = sa.func.coalesce(t.trial.c.started_at, sa.bindparam("now", now, t.UtcTime))
    if rows:
        ids = [row.id for row in rows]
        connection.execute(sa.update(t.trial).where(t.trial.c.id.in_(ids)).values(values))
        if to is not TrialState.RUNNING:
            connection.execute(sa.delete(t.trial_wish).where(t.trial_wish.c.trial_id.in_(ids)))
    return [
        audit.event(row.sweep_id, actor, f"{row.state} -> {to}", reason=reason, now=now, trial_id=row.id)
        for row in rows
    ]


def put_back(
    connection: sa.Connection, sweep_id: int, *, actor: Actor, reason: str, now: datetime
) -> list[dict[str, Any]]:
    """Make the trials that a driver left RUNNING wait for the next one, or what a person wished of them.

    Returns the events to write.
    """
    left = lock_trials(connection, sweep_id, (TrialState.RUNNING,))
    wishes = {row.trial_id: row for row in connection.execute(_wishes(sweep_id))} if left else {}
    plain = [row for row in left if row.id not in wishes]
    events = move_trials(connection, plain, TrialState.PENDING, actor=actor, reason=reason, now=now)
    for row in left:
        if (wished := wishes.get(row.id)) is not None:
            to = WISHED[wished.wish]
            events += move_trials(connection, [row], to, actor=actor, reason=wished.reason, now=now)
            if to in TRIAL_ENDS:
                audit.write_outbox(connection, [ended_item(row, to, reason=wished.reason, now=now)])
    return events


def ended_item(row: AnyRow, state: TrialState, *, reason: str, now: datetime) -> dict[str, Any]:
    """The outbox item for a trial's end."""
    return audit.item(
        Topic.TRIAL_ENDED,
        row.sweep_id,
        row.id,
        state=state,
        attempt=row.attempt,
        reason=reason,
        at=now.isoformat(),
    )


def _trial_row(sweep_id: int, trial: NewTrial) -> dict[str, Any]:
    return {
        "sweep_id": sweep_id,
        "number": trial.number,
        "state": TrialState.PENDING,
        "config": dict(trial.config),
        "config_hash": trial.config_hash,
        "seed": trial.seed,
        "attempt": 0,
        "failures": 0,
        "step": 0,
        "step_attempt": 0,
        "reason": "",
        "identity": trial.identity,
        "parent_trial_id": trial.parent_trial_id,
        "parent_step": trial.parent_step,
    }


def _param_value(value: Scalar) -> dict[str, Any]:
    if isinstance(value, str):
        return {"is_text": True, "text": value, "number": None}
    number = None if value is None or isinstance(value, bool) or math.isnan(value) else float(value)
    return {"is_text": False, "text": json.dumps(value), "number": number}


def _trial(
    row: AnyRow,
    params: Mapping[str, Scalar],
    metrics: Mapping[str, AnyRow],
    perturbations: tuple[Perturbation, ...],
) -> Trial:
    ranking = metrics.get(row.ranking)
    return Trial(
        id=row.id,
        sweep_id=row.sweep_id,
        number=row.number,
        state=row.state,
        config=row.config,
        config_hash=row.config_hash,
        seed=row.seed,
        params=params,
        attempt=row.attempt,
        failures=row.failures,
        step=row.step,
        metrics={name: metric.last for name, metric in metrics.items()},
        best=ranking.best if ranking else None,
        best_step=ranking.best_step if ranking else None,
        checkpoint_path=row.checkpoint_path,
        mlflow_run_id=row.mlflow_run_id,
        params_count=row.params_count,
        active_params=row.active_params,
        flops_per_token=row.flops_per_token,
        reason=row.reason,
        started_at=row.started_at,
        ended_at=row.ended_at,
        identity=row.identity,
        parent_trial_id=row.parent_trial_id,
        parent_step=row.parent_step,
        shared_from=row.shared_from,
        score=row.score,
        perturbations=perturbations,
    )


def _wishes(sweep_id: int) -> sa.Select[Any]:
    return sa.select(t.trial_wish).join(t.trial).where(t.trial.c.sweep_id == sweep_id)


def _wish_of_running(
    connection: sa.Connection, row: AnyRow, wish: Wish, *, user: str, reason: str, now: datetime
) -> list[dict[str, Any]]:
    """Tell the driver. Returns the events to write."""
    c = t.trial_wish.c
    before = connection.execute(sa.select(c.wish).where(c.trial_id == row.id)).scalar_one_or_none() or Wish.RUN
    if before is wish:
        return []
    connection.execute(sa.delete(t.trial_wish).where(c.trial_id == row.id))
    if wish is not Wish.RUN:
        connection.execute(sa.insert(t.trial_wish).values(trial_id=row.id, wish=wish, reason=reason))
    return [audit.event(row.sweep_id, user, f"asked to {wish}", reason=reason, now=now, trial_id=row.id)]


def _load_one(connection: sa.Connection, trial_id: int) -> Trial:
    if not is_id(trial_id):
        raise _no_trial(trial_id)
    found = _loaded(connection, _ONE, trial_id=trial_id)
    if not found:
        raise _no_trial(trial_id)
    return found[0]


def _lock_trial(connection: sa.Connection, trial_id: int) -> AnyRow:
    row = connection.execute(_LOCKED, {"trial_id": trial_id}).one_or_none()
    if row is None:
        raise _no_trial(trial_id)
    return row


def _no_trial(trial_id: int) -> NotFound:
    return NotFound(f"no trial {trial_id}; `orch show SWEEP` lists a sweep's trials with their ids")


def _stand(connection: sa.Connection, row: AnyRow) -> None:
    """This trial's result stands for its identity from now on: the newest is of the machine as it is now."""
    project_id = sa.select(t.sweep.c.project_id).where(t.sweep.c.id == row.sweep_id).scalar_subquery()
    statement = insert(connection, t.result).values(project_id=project_id, identity=row.identity, trial_id=row.id)
    newest = {"trial_id": statement.excluded.trial_id}
    connection.execute(statement.on_conflict_do_update(index_elements=["project_id", "identity"], set_=newest))


def _expect_sweep(connection: sa.Connection, sweep_id: int) -> None:
    if connection.execute(sa.select(t.sweep.c.id).where(t.sweep.c.id == sweep_id)).one_or_none() is None:
        raise NotFound(f"no sweep {sweep_id}; `orch list` shows all sweeps with their ids")


def _expect_finite(reports: Sequence[Report]) -> None:
    for report in reports:
        for name, value in report.metrics.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"metric {name!r} of trial {report.trial_id} at step {report.step} is {value}; "
                    "the store takes finite numbers: leave the others out before recording"
                )


def _sweeps_of(connection: sa.Connection, trial_ids: set[int]) -> dict[int, AnyRow]:
    c = t.sweep.c
    query = sa.select(t.trial.c.id.label("trial_id"), c.id, c.metric, c.goal, c.spec).join(t.sweep)
    rows = connection.execute(query.where(t.trial.c.id.in_(trial_ids)))
    sweeps = {row.trial_id: row for row in rows}
    for trial_id in sorted(trial_ids - sweeps.keys()):
        raise _no_trial(trial_id)
    return sweeps


def _insert_points(connection: sa.Connection, reports: Sequence[Report]) -> list[Report]:
    """Insert what is not there yet. Returns the reports reduced to the metrics that were new, empty ones left out."""
    points = [
        {
            "trial_id": report.trial_id,
            "name": name,
            "attempt": report.attempt,
            "step": report.step,
            "value": float(value),
            "at": report.at,
        }
        for report in reports
        for name, value in report.metrics.items()
    ]
    if not points:
        return []
    key_of = ("trial_id", "attempt", "step", "name")
    inserted = {tuple(row) for row in insert_new(connection, t.metric_point, points, key_of)}
    fresh: list[Report] = []
    for report in reports:
        new: dict[str, float] = {}
        for name, value in report.metrics.items():
            key = (report.trial_id, report.attempt, report.step, name)
            if key in inserted:
                inserted.remove(key)  # a batch may hold one report twice
                new[name] = float(value)
        if new:
            fresh.append(
                Report(trial_id=report.trial_id, attempt=report.attempt, step=report.step, metrics=new, at=report.at)
            )
    return fresh


def _alarms(connection: sa.Connection, fresh: Sequence[Report], sweeps: Mapping[int, AnyRow]) -> list[dict[str, Any]]:
    """Events for alarms that these reports begin or end; called while `trial_metric` has what was before them."""
    told = [report for report in fresh if any(name.startswith(health.PREFIX) for name in report.metrics)]
    if not told:
        return []
    c = t.trial_metric.c
    query = sa.select(c.trial_id, c.name, c.last).where(
        c.trial_id.in_({report.trial_id for report in told}), c.name.startswith(health.PREFIX, autoescape=True)
    )
    before: dict[int, dict[str, float]] = defaultdict(dict)
    for row in connection.execute(query):
        before[row.trial_id][row.name] = row.last
    events = []
    for report in sorted(told, key=lambda report: (report.trial_id, report.attempt, report.step)):
        for what, reason in health.news(before[report.trial_id], report.metrics, report.step):
            events.append(
                audit.event(
                    sweeps[report.trial_id].id,
                    Actor.DRIVER,
                    what,
                    reason=reason,
                    now=report.at,
                    trial_id=report.trial_id,
                )
            )
        before[report.trial_id] |= report.metrics
    return events


def _advance(connection: sa.Connection, reports: Sequence[Report]) -> None:
    """Bring `trial.step` up to date: the last step of the latest attempt."""
    latest: dict[int, tuple[int, int]] = {}
    for report in reports:
        latest[report.trial_id] = max(latest.get(report.trial_id, (0, 0)), (report.attempt, report.step))
    if latest:
        connection.execute(
            _ADVANCE, [{"of": i, "attempt_": attempt, "step_": step} for i, (attempt, step) in sorted(latest.items())]
        )
