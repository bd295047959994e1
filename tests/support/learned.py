"""Sweeps of a searcher that learns, over a real store and closed-form results: no Ray, no training."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from orchestrator.cluster.propose import Learner
from orchestrator.lifecycle import TRIAL_ENDS, TrialState
from orchestrator.matching import Sizer
from orchestrator.planning import make_plan
from orchestrator.records import NewSweep, Report, Sweep, Trial
from orchestrator.spec import load_spec
from orchestrator.store import Store
from tests.support.builders import NOW

Objective = Callable[[Trial], Mapping[str, float]]


class FixedClock:
    def now(self) -> datetime:
        return NOW


def submitted(store: Store, text: str, sizer: Sizer | None = None) -> Sweep:
    spec = load_spec(text)
    assert spec.metric is not None
    new = NewSweep(
        name=spec.name, project=spec.project, spec=spec.model_dump(mode="json"), source=text, priority=50,
        metric=spec.metric.name, goal=spec.metric.goal, user="u",
    )  # fmt: skip
    return store.sweeps.add_sweep(new, make_plan(spec, sizer).trials, now=NOW)


def finish(store: Store, trial: Trial, metrics: Mapping[str, float]) -> None:
    store.trials.start_trial(trial.id, now=NOW)
    store.trials.record([Report(trial_id=trial.id, attempt=1, step=1, metrics=metrics, at=NOW)])
    store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)


def search(
    store: Store, sweep: Sweep, objective: Objective, *, at_most: int = 10**6, sizer: Sizer | None = None
) -> Learner:
    """What a driver does, one trial at a time; stops, as if killed, after `at_most`."""
    learner = Learner(sweep, store.trials, FixedClock(), sizer)
    waiting = [trial for trial in store.trials.trials(sweep.id) if trial.state not in TRIAL_ENDS]
    for _ in range(at_most):
        waiting = waiting or learner.propose()
        if not waiting:
            break
        trial = waiting.pop(0)
        finish(store, trial, objective(trial))
        learner.finished(trial)
    return learner


def a_row(number: int, **changes: Any) -> Trial:
    """A trial as it stands in the store, with only what matters written out."""
    fixed = {
        "id": number, "sweep_id": 1, "number": number, "state": TrialState.RUNNING, "config": {}, "seed": 0,
        "config_hash": f"hash-{number}", "params": {}, "attempt": 1, "failures": 0, "step": 0, "metrics": {},
    }  # fmt: skip
    return Trial(**dict.fromkeys(Trial.__dataclass_fields__) | fixed | changes)
