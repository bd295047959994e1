"""Sweeps, trials and reports that tests need, with only what matters written out."""

from datetime import UTC, datetime
from typing import Any

from orchestrator.records import NewSweep, NewTrial, Report

NOW = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def a_sweep(**changes: Any) -> NewSweep:
    values: dict[str, Any] = {
        "name": "routing",
        "project": "moe",
        "spec": {"name": "routing", "seeds": [0, 1]},
        "source": "name: routing\nseeds: [0, 1]\n",
        "priority": 50,
        "metric": "val_bpb",
        "goal": "minimize",
        "user": "ada",
    }
    return NewSweep(**values | changes)


def a_trial(number: int = 0, **changes: Any) -> NewTrial:
    values: dict[str, Any] = {
        "number": number,
        "config": {"model": {"d_model": 64, "router": {"name": "topk"}}, "training": {"lr": 0.003}},
        "config_hash": f"hash-{number}",
        "seed": number,
        "params": {"model.router.name": "topk", "training.lr": 0.003},
    }
    return NewTrial(**values | changes)


def some_trials(count: int) -> list[NewTrial]:
    return [a_trial(number) for number in range(count)]


def a_report(trial_id: int, step: int, *, attempt: int = 1, at: datetime = NOW, **metrics: float) -> Report:
    return Report(
        trial_id=trial_id, attempt=attempt, step=step, metrics=metrics or {"val_bpb": 8.0 / (step + 1)}, at=at
    )
