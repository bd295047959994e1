"""What the record promises to several threads and processes at once, and to one that is killed."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import pytest

from orchestrator.errors import IllegalMove
from orchestrator.lifecycle import Actor, SweepState, TrialState, Wish
from orchestrator.records import Event, Topic
from orchestrator.store import Store, audit
from tests.contracts import racers
from tests.support.builders import NOW, a_report, a_sweep, some_trials
from tests.support.crew import SIZE, Crew


def events_of(store: Store) -> list[Event]:
    return store.sweeps.events(limit=100_000)


def test_of_many_processes_that_see_a_sweep_alike_one_moves_it(store: Store, database_url: str, crew: Crew) -> None:
    sweep = store.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
    racing = crew.start(racers.race_to_start, *[(database_url, sweep.id)] * SIZE)
    won = [each.result() for each in racing]
    assert sorted(won) == [False, False, True]
    assert store.sweeps.sweep(sweep.id).attempt == 1
    assert [event.what for event in events_of(store)] == ["submitted", "queued -> starting"]


def test_of_many_threads_that_start_a_trial_one_does(store: Store) -> None:
    sweep = store.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
    [trial] = store.trials.trials(sweep.id)

    def start() -> bool:
        try:
            store.trials.start_trial(trial.id, now=NOW)
        except IllegalMove:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [future.result() for future in [pool.submit(start) for _ in range(8)]]
    assert sum(won) == 1
    assert store.trials.trial(trial.id).attempt == 1


def test_drivers_coordinator_and_readers_at_once_lose_nothing(store: Store, database_url: str, crew: Crew) -> None:
    trials, steps = 3, 15
    driving = crew.start(
        racers.submit_and_train, *[(database_url, f"sweep-{number}", trials, steps) for number in range(SIZE)]
    )
    seen: list[Event] = []
    tick = 0
    while not all(each.done() for each in driving):
        tick += 1
        for sweep in store.sweeps.open_sweeps():
            store.sweeps.allot(sweep.id, tick, "a tick")
            store.sweeps.wish(sweep.id, Wish.PAUSE if tick % 2 else Wish.RUN, user="ada", reason="", now=NOW)
        seen += store.sweeps.events(after=seen[-1].id if seen else 0)
    sweep_ids = [each.result() for each in driving]
    seen += store.sweeps.events(after=seen[-1].id if seen else 0)
    assert seen == events_of(store)
    done = [trial for sweep_id in sweep_ids for trial in store.trials.trials(sweep_id)]
    assert {(trial.state, trial.step, trial.best, trial.best_step) for trial in done} == {
        (TrialState.SUCCEEDED, steps - 1, 1.0, steps - 1)
    }
    assert len(done) == SIZE * trials
    items = store.outbox.pending(limit=100_000)
    for trial in done:
        own = [item for item in items if item.trial_id == trial.id]
        assert [item.topic for item in own] == [Topic.TRIAL_STARTED, *[Topic.REPORT] * steps, Topic.TRIAL_ENDED]
        assert [item.payload["step"] for item in own[1:-1]] == list(range(steps))


def test_an_event_is_not_seen_before_one_with_a_lower_number(store: Store) -> None:
    """Else a reader that asks for what came after the last event it saw would miss the slower one for good."""
    sweep = store.sweeps.add_sweep(a_sweep(), [], now=NOW)
    with ThreadPoolExecutor(1) as pool:
        with store.database.write() as slow:
            audit.write_events(slow, [audit.event(sweep.id, "ada", "slow", reason="", now=NOW)])
            quick = pool.submit(store.sweeps.wish, sweep.id, Wish.PAUSE, user="ada", reason="", now=NOW)
            wait([quick], timeout=0.3)
            assert [event.what for event in events_of(store)] == ["submitted"]
        quick.result(timeout=30)
    assert [event.what for event in events_of(store)] == ["submitted", "slow", "asked to pause"]


@pytest.mark.parametrize("act", sorted(racers.ACTS))
def test_kill_9_in_mid_transaction_leaves_nothing_half_written(store: Store, database_url: str, act: str) -> None:
    sweep = store.sweeps.add_sweep(a_sweep(name="whole"), some_trials(2), now=NOW)
    first = store.trials.trials(sweep.id)[0]
    store.trials.start_trial(first.id, now=NOW)
    before = everything(store, sweep.id)
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.contracts.racers", database_url, act], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "half\n"
    assert everything(store, sweep.id) == before, "an unfinished transaction must not be seen"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    assert everything(store, sweep.id) == before
    store.trials.record([a_report(first.id, 1)])  # the dead writer's locks are gone
    assert store.trials.trial(first.id).step == 1


def everything(store: Store, sweep_id: int) -> tuple[Any, ...]:
    trials = store.trials.trials(sweep_id)
    curves = [store.trials.curve(trial.id, "val_bpb") for trial in trials]
    return store.sweeps.sweeps(), trials, curves, events_of(store), store.outbox.pending()


def test_cancelling_while_the_driver_ends_its_trials_leaves_each_ended_once(store: Store) -> None:
    for _ in range(5):
        sweep = store.sweeps.add_sweep(a_sweep(), some_trials(4), now=NOW)
        trials = [store.trials.start_trial(trial.id, now=NOW) for trial in store.trials.trials(sweep.id)]
        before = len(store.outbox.pending(100_000))
        with ThreadPoolExecutor(2) as pool:
            cancelling = pool.submit(cancel, store, sweep.id)
            for trial in trials:
                with suppress(IllegalMove):  # it was cancelled first
                    store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="done", now=NOW)
            cancelling.result(timeout=30)
        ended = [item.trial_id for item in store.outbox.pending(100_000)[before:] if item.topic is Topic.TRIAL_ENDED]
        assert sorted(ended) == [trial.id for trial in trials]
        after = {trial.state for trial in store.trials.trials(sweep.id)}
        assert after <= {TrialState.SUCCEEDED, TrialState.CANCELLED}


def cancel(store: Store, sweep_id: int) -> None:
    seen = store.sweeps.sweep(sweep_id)
    store.sweeps.move_sweep(seen, SweepState.CANCELLED, actor=Actor.COORDINATOR, reason="asked", now=NOW)
