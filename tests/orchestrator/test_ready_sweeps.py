"""Smoke profiles of the ready sweeps train; `python -m tests.benchmarks.ready_sweeps` runs them whole, as sweeps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import workloads
from orchestrator.planning import make_plan
from orchestrator.spec.compose import compose
from orchestrator.spec.load import check_document

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_smoke_trial_of_every_ready_sweep_trains_to_its_end_and_reports_what_ranks_it(path: Path) -> None:
    spec = check_document(compose(path, Path.read_text, profile="smoke"))
    trial = make_plan(spec).trials[-1]
    *_, last = workloads.train({**trial.config, "seed": trial.seed})
    assert last["step"] == trial.config["training"]["steps"] <= 20
    assert spec.metric is not None
    assert math.isfinite(last[spec.metric.name])
