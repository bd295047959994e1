"""What orch costs a trial: thousands that train nothing, through the real coordinator and driver on two slots.

    python -m tests.benchmarks.trial_overhead [--trials 2000]

The sweep goes the whole way: API, coordinator, Ray job, Tune, warm Ray Train groups, recorder. A trial is one step of a
network of four units (20 ms of CPU), so all else is orch's and Ray's. Printed: milliseconds of a slot that a trial
takes, early and late in the sweep; the coordinator's ticks and memory; what the database took.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.lifecycle import SWEEP_ENDS
from orchestrator.records import Trial
from orchestrator.store import open_store
from tests.support.live_service import NOTHING, LiveService, live_service, memory_bytes

SLOTS = 2
TRIAL_S = 1.0
"""Overhead is told for trials of so many seconds."""


def sweep_of(name: str, trials: int) -> str:
    """A sweep file with so many trials of nothing."""
    return yaml.safe_dump(
        {
            "name": name,
            "workload": NOTHING,
            "parameters": {"training.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}},
            "search": {"method": "random", "max_trials": trials},
        }
    )


def run(service: LiveService, name: str, trials: int) -> int:
    """Submit such a sweep and wait for its end; its number."""
    body = {"text": sweep_of(name, trials), "file": "sweep.yaml", "user": "benchmark", "rerun": True}
    answer = service.http.post("/sweeps", json=body)
    answer.raise_for_status()
    sweep_id = int(answer.json()["sweep_id"])
    while (found := service.http.get("/sweeps", params={"limit": 1}).json()["sweeps"][0])["state"] not in SWEEP_ENDS:
        time.sleep(1)
    assert found["state"] == "succeeded", found
    return sweep_id


def histogram(service: LiveService, name: str) -> tuple[float, float, float]:
    """(number, mean, upper bound of the 95th percentile) of one of the coordinator's histograms, in seconds."""
    text = service.http.get(service.url + "/metrics").text
    [family] = [each for each in text_string_to_metric_families(text) if each.name == name]
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name == f"{name}_bucket"]
    [total] = [sample.value for sample in family.samples if sample.name == f"{name}_sum"]
    number = buckets[-1][1]
    return number, total / number, next(bound for bound, count in buckets if count >= 0.95 * number)


def slot_ms(trials: Sequence[Trial]) -> float:
    """Milliseconds of a slot that each of these took, from the first's start to the last's end."""
    starts: list[datetime] = [trial.started_at for trial in trials if trial.started_at]
    ends: list[datetime] = [trial.ended_at for trial in trials if trial.ended_at]
    return 1e3 * SLOTS * (max(ends) - min(starts)).total_seconds() / len(trials)


def report(service: LiveService, sweep_id: int, grown_bytes: int) -> str:
    """A few lines."""
    store = open_store(service.settings.database_url)
    trials = sorted(store.trials.trials(sweep_id), key=lambda trial: trial.ended_at or datetime.max)
    store.close()
    assert {trial.state for trial in trials} == {"succeeded"}
    assert {trial.attempt for trial in trials} == {1}
    tenth = len(trials) // 10
    all_ms, early_ms, late_ms = slot_ms(trials), slot_ms(trials[tenth : 2 * tenth]), slot_ms(trials[-tenth:])
    ticks, tick_s, tick_p95_s = histogram(service, "orch_tick_seconds")
    rows = sum(len(trial.metrics) for trial in trials)
    lines = [
        f"{len(trials):,} trials on {SLOTS} slots: {all_ms:.0f} ms of a slot each; {early_ms:.0f} ms in the second "
        f"tenth, {late_ms:.0f} ms in the last; of trials of {TRIAL_S:g} s that is {all_ms / TRIAL_S / 10:.0f} %",
        f"coordinator: {ticks:,.0f} ticks, mean {1e3 * tick_s:.1f} ms, p95 at most {1e3 * tick_p95_s:g} ms; "
        f"memory grew by {grown_bytes / 1e6:.1f} MB, {grown_bytes / len(trials) / 1e3:.1f} KB a trial",
        f"database: {rows:,} rows of curves and {len(trials):,} trials recorded once each",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, live_service(Path(home), tracked=False) as service:
        run(service, "warm-up", 4)
        before = memory_bytes(service.coordinator)
        sweep_id = run(service, "nothing", options.trials)
        print(report(service, sweep_id, memory_bytes(service.coordinator) - before), flush=True)


if __name__ == "__main__":
    main()
