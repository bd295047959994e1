"""What the processes of the concurrency tests run. Each opens the database for itself."""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import Any

from orchestrator.errors import StaleRow
from orchestrator.lifecycle import Actor, SweepState, TrialState
from orchestrator.store import Store, audit, open_store
from tests.support.builders import NOW, a_report, a_sweep, some_trials


def race_to_start(url: str, sweep_id: int, barrier: Barrier) -> bool:
    """Start the sweep as seen by all racers before any of them moved; whether this one won."""
    store = open_store(url)
    seen = store.sweeps.sweep(sweep_id)
    barrier.wait()
    try:
        store.sweeps.move_sweep(seen, SweepState.STARTING, actor=Actor.COORDINATOR, reason=str(os.getpid()), now=NOW)
    except StaleRow:
        return False
    finally:
        store.close()
    return True


def submit_and_train(url: str, name: str, trials: int, steps: int, barrier: Barrier) -> int:
    """Submit a sweep and report from all of its trials, each report in a transaction; the sweep's number."""
    store = open_store(url)
    barrier.wait()
    sweep = store.sweeps.add_sweep(a_sweep(name=name), some_trials(trials), now=NOW)
    for trial in store.trials.trials(sweep.id):
        store.trials.start_trial(trial.id, now=NOW)
        for step in range(steps):
            store.trials.record([a_report(trial.id, step, val_bpb=float(steps - step), loss=1.0)])
        store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="all steps", now=NOW)
    store.close()
    return sweep.id


def race_for_the_lease(url: str, holder: str, barrier: Barrier) -> bool:
    """Take the lease as seen by all racers before any of them took it; whether this one did."""
    store = open_store(url)
    seen = store.lease.see()
    barrier.wait()
    try:
        return store.lease.take(seen, holder, now=NOW) is not None
    finally:
        store.close()


def open_and_close(url: str, barrier: Barrier) -> None:
    barrier.wait()
    open_store(url).close()


def add_sweep(store: Store) -> None:
    store.sweeps.add_sweep(a_sweep(name="half"), some_trials(3), now=NOW)


def cancel_sweep(store: Store) -> None:
    seen = store.sweeps.find_sweep("whole")
    store.sweeps.move_sweep(seen, SweepState.CANCELLED, actor=Actor.COORDINATOR, reason="asked", now=NOW)


def record(store: Store) -> None:
    sweep = store.sweeps.find_sweep("whole")
    store.trials.record([a_report(trial.id, 1) for trial in store.trials.trials(sweep.id)])


def end_trial(store: Store) -> None:
    sweep = store.sweeps.find_sweep("whole")
    running = next(trial for trial in store.trials.trials(sweep.id) if trial.state is TrialState.RUNNING)
    store.trials.end_trial(running.id, TrialState.SUCCEEDED, reason="done", now=NOW)


ACTS: dict[str, Callable[[Store], None]] = {act.__name__: act for act in (add_sweep, cancel_sweep, record, end_trial)}


def hang_in_mid_transaction(url: str, act: str) -> None:
    """Do `act`, but never reach its last statement: say so on stdout and wait to be killed."""

    def hang(*_: Any) -> None:
        print("half", flush=True)
        time.sleep(600)

    last = "write_outbox" if act == "record" else "write_events"
    setattr(audit, last, hang)
    ACTS[act](open_store(url))


if __name__ == "__main__":
    hang_in_mid_transaction(*sys.argv[1:])
