"""What the record and the coordinator cost at thousands of trials. Prints its figures; run with -s to see them.

At full size, and asserted, with ORCH_BENCHMARK=1 on a quiet machine; elsewhere a busy neighbour would decide the test.
Memory is counted and not timed, so it is asserted everywhere.
"""

from __future__ import annotations

import os
import statistics
import time
import tracemalloc
from collections.abc import Callable

import pytest

from orchestrator.coordinator import Coordinator
from orchestrator.lifecycle import TrialState
from orchestrator.records import Report, Trial
from orchestrator.store import Store
from tests.support.builders import NOW, a_sweep, some_trials
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

ASSERTED = os.environ.get("ORCH_BENCHMARK") == "1"
TRIALS = 10_000 if ASSERTED else 100
A_SWEEP = 1000 if ASSERTED else 50
CLOCK = time.perf_counter if ASSERTED else time.process_time
"""Where others share the machine, what this process computed itself says more."""

UNIT = "seconds" if ASSERTED else "CPU seconds of the client"

STEPS, METRICS = 10, 5
TICKS = 20
LONGEST_TICK_S = 0.050
BYTES_A_TRIAL = 20_000
SPEC = {
    "name": "routing",
    "metric": {"name": "val_bpb", "goal": "minimize"},
    "resources": {"workers": 1, "cpu": 1, "gpu": 0},
    "search": {"method": "grid", "max_trials": A_SWEEP},
}


def reports(trial: Trial) -> list[Report]:
    metrics = {"val_bpb": 2.5} | {f"loss_{i}": 1.0 for i in range(METRICS - 1)}
    return [Report(trial_id=trial.id, attempt=1, step=step, metrics=metrics, at=NOW) for step in range(STEPS)]


def timed(work: Callable[[], object]) -> float:
    began = CLOCK()
    work()
    return CLOCK() - began


def replay(store: Store, trials: list[Trial]) -> tuple[float, float]:
    """Seconds that recording all reports took, a batch a trial; and one at a time, as a driver does, for a tenth."""
    single = trials[:: max(len(trials) // 100, 10)]
    one_s = sum(timed(lambda report=report: store.trials.record([report])) for t in single for report in reports(t))
    return sum(timed(lambda t=t: store.trials.record(reports(t))) for t in trials), one_s / len(single) / STEPS


@pytest.mark.timeout(1800)
def test_thousands_of_recorded_trials_keep_ticks_short_and_memory_flat(store: Store, database_url: str) -> None:
    launcher, clock = FakeLauncher(cpus=2), FakeClock()
    sweeps = [
        store.sweeps.add_sweep(a_sweep(name=f"s{i}", spec=SPEC), some_trials(A_SWEEP), now=clock.now())
        for i in range(TRIALS // A_SWEEP)
    ]
    trials = [trial for sweep in sweeps for trial in store.trials.trials(sweep.id)]
    start_s = sum(timed(lambda t=t: store.trials.start_trial(t.id, now=NOW)) for t in trials)
    batched_s, one_report_s = replay(store, trials)
    kept = {trial.id for trial in trials[::A_SWEEP]}
    ended = [trial for trial in trials if trial.id not in kept]
    end_s = sum(
        timed(lambda t=t: store.trials.end_trial(t.id, TrialState.SUCCEEDED, reason="", now=NOW)) for t in ended
    )
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock)
    for _ in range(3):
        coordinator.tick()
    tracemalloc.start()
    ticks = []
    for _ in range(TICKS):
        clock.advance(seconds=1)
        ticks.append(timed(coordinator.tick))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    quiet = [timed(coordinator.tick) for _ in range(TICKS)]

    rows = TRIALS * STEPS * METRICS
    print(
        f"\n{database_url.partition(':')[0]}: {TRIALS:,} trials, {rows:,} rows of curves, in {UNIT}: "
        f"{1e6 * batched_s / rows:.1f} us a row in batches of {STEPS * METRICS}, "
        f"{1e6 * one_report_s / METRICS:.1f} us a row in single reports; "
        f"start {1e3 * start_s / TRIALS:.2f} ms, end {1e3 * end_s / len(ended):.2f} ms a trial; "
        f"tick p50 {1e3 * statistics.median(quiet):.1f} ms, longest {1e3 * max(quiet):.1f} ms; "
        f"{peak / TRIALS:,.0f} bytes a trial"
    )
    assert peak / TRIALS <= BYTES_A_TRIAL
    if ASSERTED:
        assert statistics.median(quiet) <= LONGEST_TICK_S


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not ASSERTED, reason="ORCH_BENCHMARK=1 runs it")
def test_a_tick_with_thousands_of_sweeps_in_the_queue(store: Store, database_url: str) -> None:
    launcher, clock = FakeLauncher(cpus=2), FakeClock()
    for i in range(TRIALS):
        store.sweeps.add_sweep(a_sweep(name=f"s{i}", spec=SPEC), some_trials(1), now=clock.now())
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock)
    for _ in range(3):
        coordinator.tick()
    ticks = []
    for _ in range(TICKS):
        clock.advance(seconds=0.25)
        ticks.append(timed(coordinator.tick))
    print(
        f"\n{database_url.partition(':')[0]}: {TRIALS:,} sweeps in the queue: "
        f"tick p50 {1e3 * statistics.median(ticks):.0f} ms, longest {1e3 * max(ticks):.0f} ms"
    )
