"""Use case: rank configurations, each among those trained on the same data; ranking rules are pure functions.

Trials that differ in the seed alone are one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from orchestrator.aggregate import Aggregate
from orchestrator.errors import BadInput
from orchestrator.pareto import front
from orchestrator.ports import BoardStore, SweepStore
from orchestrator.racing import standing_of
from orchestrator.records import DATA_CHECKSUM, Sweep, Trial
from orchestrator.report import Leaderboard, LeaderboardRow, MetricEstimate
from orchestrator.spec.operations import Seeds

CONFIDENCE = 0.95


def leaderboard(
    sweeps: SweepStore,
    board: BoardStore,
    *,
    project: str | None = None,
    sweep: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Leaderboard:
    """The ranked configurations of a project or of one sweep.

    Without either, the project of the newest sweep. Only sweeps with the same metric, aggregated the
    same way, rank together: that of the newest.

    Raises:
        NotFound: no such sweep. BadInput: the cursor is none of ours.
    """
    if sweep is not None:
        scope = [sweeps.find_sweep(sweep)]
    else:
        newest = sweeps.sweeps(project=project, limit=1)
        scope = sweeps.sweeps(project=newest[0].project, limit=10_000) if newest else []
    if not scope:
        return Leaderboard(project=project, metric=None, goal=None, goals={}, rows=[], next_cursor=None)
    metric, goal = scope[0].metric, scope[0].goal
    comparable = {each.id: each for each in scope if _ranked_by(each) == _ranked_by(scope[0])}
    found = board.board_trials(project=scope[0].project, sweep_id=scope[0].id if sweep is not None else None)
    trials = [trial for trial in found if trial.sweep_id in comparable and trial.score is not None]
    rows = ranked(trials, comparable, metric, maximize=goal == "maximize")
    _mark_front(rows, scope[0].goals)
    if sweep is not None:
        rows = raced(rows, scope[0], trials)
    start = _start(cursor)
    page = rows[start : start + limit]
    following = str(start + limit) if start + limit < len(rows) else None
    return Leaderboard(
        project=scope[0].project, metric=metric, goal=goal, goals=scope[0].goals, rows=page, next_cursor=following
    )


def ranked(trials: Iterable[Trial], sweeps: dict[int, Sweep], metric: str, *, maximize: bool) -> list[LeaderboardRow]:
    """Rows by mean of `metric` over seeds; equal means share a rank and stand in order of their first trial.

    Each data set has ranks of its own: the one with the most trials stands first.
    """
    groups: dict[str | None, dict[str, list[Trial]]] = {}
    for trial in trials:
        groups.setdefault(trial.data_checksum, {}).setdefault(trial.config_hash, []).append(trial)

    def size(data: str | None) -> tuple[int, int]:
        members = [trial for group in groups[data].values() for trial in group]
        return -len(members), min(trial.id for trial in members)

    sign = -1.0 if maximize else 1.0
    return [row for data in sorted(groups, key=size) for row in _ranked(groups[data].values(), sweeps, metric, sign)]


def raced(rows: list[LeaderboardRow], sweep: Sweep, trials: Sequence[Trial]) -> list[LeaderboardRow]:
    """The rows of a sweep whose seeds are a race: those that it cannot tell apart share the first rank."""
    words = sweep.spec.get("seeds")
    if not isinstance(words, Mapping) or words.get("policy") != "race":
        return rows
    leaders = standing_of(Seeds.model_validate(words), trials, maximize=sweep.goal == "maximize").leaders
    names = {trial.id: trial.config_hash for trial in trials}
    first = [row for row in rows if names[row.trial_ids[0]] in leaders]
    for row in first:
        row.rank, row.tied = 1, len(first) > 1
    others = [row for row in rows if names[row.trial_ids[0]] not in leaders]
    for place, row in enumerate(others, start=len(first) + 1):
        row.rank = place
    return first + others


def estimate(values: Sequence[float]) -> MetricEstimate:
    """Mean with its 95% t-interval over seeds."""
    n = len(values)
    mean = fmean(values)
    if n < 2:
        return MetricEstimate(mean=mean, low=None, high=None, n=n)
    half = _t_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return MetricEstimate(mean=mean, low=mean - half, high=mean + half, n=n)


def _ranked_by(sweep: Sweep) -> tuple[str, Aggregate]:
    return sweep.metric, Aggregate.of(sweep.spec, sweep.goal)


def _ranked(
    groups: Iterable[Sequence[Trial]], sweeps: dict[int, Sweep], metric: str, sign: float
) -> list[LeaderboardRow]:
    scored = [(_row(group, sweeps, metric), min(trial.id for trial in group)) for group in groups]
    scored.sort(key=lambda item: (sign * item[0].metrics[metric].mean, item[1]))
    rows = [row for row, _ in scored]
    for place, row in enumerate(rows):
        tied = place > 0 and row.metrics[metric].mean == rows[place - 1].metrics[metric].mean
        row.rank = rows[place - 1].rank if tied else place + 1
    return rows


def _mark_front(rows: Sequence[LeaderboardRow], goals: Mapping[str, str]) -> None:
    """Where several metrics count: which rows no other of the same data beats in all of them."""
    if len(goals) < 2:
        return
    for data in {row.data_checksum for row in rows}:
        same = {place: row for place, row in enumerate(rows) if row.data_checksum == data}
        points = {
            place: [row.metrics[name].mean for name in goals]
            for place, row in same.items()
            if goals.keys() <= row.metrics.keys()
        }
        best = front(points, list(goals.values()))
        for place, row in same.items():
            row.pareto = place in best


def _row(group: Sequence[Trial], sweeps: dict[int, Sweep], metric: str) -> LeaderboardRow:
    # One trial a seed, the newest: a configuration that two sweeps share must not count a seed twice.
    by_seed = {trial.seed: trial for trial in sorted(group, key=lambda trial: trial.id)}
    chosen = sorted(by_seed.values(), key=lambda trial: trial.id)
    names = {name for trial in chosen for name in trial.metrics} - {DATA_CHECKSUM}
    metrics = {
        name: estimate([trial.metrics[name] for trial in chosen if name in trial.metrics]) for name in sorted(names)
    }
    metrics[metric] = estimate([trial.score for trial in chosen if trial.score is not None])
    return LeaderboardRow(
        rank=0,
        params=dict(chosen[0].params),
        metrics=metrics,
        trial_ids=[trial.id for trial in chosen],
        sweeps=sorted({sweeps[trial.sweep_id].name for trial in chosen}),
        data_checksum=chosen[0].data_checksum,
        pareto=None,
    )


def _t_quantile(degrees: int) -> float:
    # SciPy takes 0.3 s to import, and only boards of several seeds need it.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def _start(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isdecimal():
        raise BadInput(f"cursor {cursor!r} is not one that a leaderboard gave out; leave it out to start at the top.")
    return int(cursor)
