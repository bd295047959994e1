"""What orch costs a trial: thousands that train nothing, through the real coordinator and driver on two slots.

    python -m tests.benchmarks.trial_overhead [--trials 2000] [--peer 400]

The sweep goes the whole way: API, coordinator, Ray job, Tune, warm Ray Train groups, recorder. A trial is one step of a
network of four units (20 ms of CPU), so all else is orch's and Ray's. Printed: milliseconds of a slot that a trial
takes, early and late in the sweep; the same of Ray Tune alone, before it on the same cluster, with a function that
trains the same and actors that are used again; the coordinator's ticks and memory; what the database took.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Ticks:
    """The coordinator's ticks: seconds of all, and how many took at most so many seconds."""

    total_s: float
    within: dict[float, float]

    @classmethod
    def of(cls, service: LiveService) -> Ticks:
        """Those so far."""
        text, name = service.http.get(service.url + "/metrics").text, "orch_tick_seconds"
        [family] = [each for each in text_string_to_metric_families(text) if each.name == name]
        buckets = {float(s.labels["le"]): s.value for s in family.samples if s.name == f"{name}_bucket"}
        [total] = [sample.value for sample in family.samples if sample.name == f"{name}_sum"]
        return cls(total, buckets)

    def since(self, before: Ticks) -> Ticks:
        """Those that came after `before`."""
        within = {bound: count - before.within[bound] for bound, count in self.within.items()}
        return Ticks(self.total_s - before.total_s, within)

    @property
    def number(self) -> float:
        return max(self.within.values())

    def bound_s(self, share: float) -> float:
        """A number of seconds that so many of them did not exceed."""
        return min(bound for bound, count in self.within.items() if count >= share * self.number)


def slot_ms(trials: Sequence[Trial]) -> float:
    """Milliseconds of a slot that each of these took, from the first's start to the last's end."""
    starts: list[datetime] = [trial.started_at for trial in trials if trial.started_at]
    ends: list[datetime] = [trial.ended_at for trial in trials if trial.ended_at]
    return 1e3 * SLOTS * (max(ends) - min(starts)).total_seconds() / len(trials)


def peer_ms(service: LiveService, trials: int) -> tuple[float, float, float]:
    """The same of Tune alone, by a driver of its own: of all trials, of the second tenth, of the last."""
    command = [sys.executable, "-m", "tests.benchmarks.trial_overhead", "peer", str(trials)]
    environment = {**os.environ, "RAY_ADDRESS": service.head.gcs_address, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    every, early, late = map(float, done.stdout.splitlines()[-1].split())
    return every, early, late


def _peer(trials: int) -> None:
    import ray
    from ray import tune

    class Times(tune.Callback):
        def __init__(self) -> None:
            self.starts: list[float] = []
            self.ends: list[float] = []

        def on_trial_start(self, *_: Any, **__: Any) -> None:
            self.starts.append(time.monotonic())

        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.monotonic())

        def slot_ms(self, ends: slice) -> float:
            some = self.ends[ends]
            began = self.starts[0] if ends == slice(None) else self.ends[(ends.start or 0) - 1]
            return 1e3 * SLOTS * (some[-1] - began) / len(some)

    ray.init(log_to_driver=False)
    times, tenth = Times(), trials // 10
    with tempfile.TemporaryDirectory() as home:
        tune.Tuner(
            tune.with_resources(_peers_trial, {"cpu": 1}),
            param_space={"lr": tune.loguniform(1e-4, 1e-2)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=SLOTS, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=home, callbacks=[times], verbose=0),
        ).fit()
    assert len(times.ends) == trials
    figures = (slice(None), slice(tenth, 2 * tenth), slice(trials - tenth, trials))
    print(*(times.slot_ms(each) for each in figures))


def _peers_trial(config: dict[str, Any]) -> None:
    from ray import tune

    import workloads

    trial = {**NOTHING, "training": {**NOTHING["training"], **config}, "seed": 0}
    with tempfile.TemporaryDirectory() as checkpoints:
        for row in workloads.train(trial, checkpoint_dir=checkpoints):
            tune.report(row)


def report(
    service: LiveService, sweep_id: int, ticks: Ticks, grown_bytes: int, peer: tuple[float, float, float] | None
) -> str:
    """A few lines."""
    store = open_store(service.settings.database_url)
    trials = sorted(store.trials.trials(sweep_id), key=lambda trial: trial.ended_at or datetime.max)
    store.close()
    assert {trial.state for trial in trials} == {"succeeded"}
    assert {trial.attempt for trial in trials} == {1}
    tenth = len(trials) // 10
    all_ms, early_ms, late_ms = slot_ms(trials), slot_ms(trials[tenth : 2 * tenth]), slot_ms(trials[-tenth:])
    rows = sum(len(trial.metrics) for trial in trials)
    peers = []
    if peer is not None:
        peers = [
            f"Tune alone: {peer[0]:.0f} ms; {peer[1]:.0f} ms in the second tenth, {peer[2]:.0f} ms in the last; orch's "
            f"ratio to it, late in each: {late_ms / peer[2]:.2f}"
        ]
    lines = [
        f"{len(trials):,} trials on {SLOTS} slots: {all_ms:.0f} ms of a slot each; {early_ms:.0f} ms in the second "
        f"tenth, {late_ms:.0f} ms in the last; of trials of {TRIAL_S:g} s that is {all_ms / TRIAL_S / 10:.0f} %",
        *peers,
        f"coordinator: {ticks.number:,.0f} ticks, mean {1e3 * ticks.total_s / ticks.number:.1f} ms, p95 at most "
        f"{1e3 * ticks.bound_s(0.95):g} ms, {ticks.number - ticks.within[0.05]:.0f} over 50 ms, "
        f"all at most {1e3 * ticks.bound_s(1):g} ms; "
        f"memory grew by {grown_bytes / 1e6:.1f} MB, {grown_bytes / len(trials) / 1e3:.1f} KB a trial",
        f"database: {rows:,} rows of curves and {len(trials):,} trials recorded once each",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print them."""
    if sys.argv[1:2] == ["peer"]:
        _peer(int(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--peer", type=int, default=400, help="trials of Tune alone; 0 for none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, live_service(Path(home), tracked=False) as service:
        peer = peer_ms(service, options.peer) if options.peer else None
        run(service, "warm-up", 4)
        before, ticks = memory_bytes(service.coordinator), Ticks.of(service)
        sweep_id = run(service, "nothing", options.trials)
        ticks = Ticks.of(service).since(ticks)
        print(report(service, sweep_id, ticks, memory_bytes(service.coordinator) - before, peer), flush=True)


if __name__ == "__main__":
    main()
