"""What every SweepStore promises."""

from datetime import timedelta

import pytest

from orchestrator.errors import IllegalMove, NotFound, StaleRow
from orchestrator.lifecycle import SWEEP_ENDS, Actor, SweepState, TrialState, Wish
from orchestrator.records import Once, Sweep, Topic
from orchestrator.store import Store
from tests.support.builders import NOW, a_report, a_sweep, a_trial, some_trials
from tests.support.clock import FakeClock

S = SweepState


def add(store: Store, trials: int = 2, **changes: object) -> Sweep:
    return store.sweeps.add_sweep(a_sweep(**changes), some_trials(trials), now=NOW)


def move(store: Store, sweep: Sweep, to: SweepState, reason: str = "because", **extra: object) -> Sweep:
    return store.sweeps.move_sweep(sweep, to, actor=Actor.COORDINATOR, reason=reason, now=NOW, **extra)


class TestAdding:
    def test_gives_back_what_went_in(self, store: Store) -> None:
        added = add(store, spec={"b": 1, "a": [float("inf"), "\0", "ü", None]}, source="a: ü\n")
        assert added == store.sweeps.sweep(added.id)
        assert (added.name, added.project, added.user, added.priority) == ("routing", "moe", "ada", 50)
        assert (added.metric, added.goal, added.source) == ("val_bpb", "minimize", "a: ü\n")
        assert added.spec == {"b": 1, "a": [float("inf"), "\0", "ü", None]}
        assert list(added.spec) == ["b", "a"]
        assert (added.state, added.wish, added.version, added.attempt, added.slots) == (S.QUEUED, Wish.RUN, 1, 0, 0)
        assert (added.started_at, added.ended_at, added.ray_job_id, added.mlflow_run_id) == (None, None, None, None)

    def test_gives_back_the_trials_as_they_will_be_read(self, store: Store) -> None:
        planned = [a_trial(1, params={"b": "said \0", "a": 1e-3}), a_trial(0, params={"x": None})]
        recorded = store.sweeps.record(a_sweep(), planned, now=NOW)
        assert recorded.sweep == store.sweeps.sweep(recorded.sweep.id)
        assert list(recorded.trials) == store.trials.trials(recorded.sweep.id)
        assert [list(trial.params) for trial in recorded.trials] == [["x"], ["a", "b"]]

    def test_gives_back_the_trials_of_what_was_submitted_before(self, store: Store) -> None:
        once = Once(key="k", content="c")
        first = store.sweeps.record(a_sweep(), some_trials(2), now=NOW, once=once)
        trial = store.trials.start_trial(first.trials[0].id, now=NOW)
        again = store.sweeps.record(a_sweep(), some_trials(2), now=NOW, once=once)
        assert (again.sweep.id, again.trials[0]) == (first.sweep.id, trial)

    def test_times_are_aware_utc_to_the_microsecond(self, store: Store) -> None:
        created = add(store).created_at
        assert created == NOW
        assert created.utcoffset() == timedelta(0)

    def test_plans_its_trials_and_writes_the_first_event(self, store: Store) -> None:
        sweep = add(store, trials=3)
        assert [trial.number for trial in store.trials.trials(sweep.id)] == [0, 1, 2]
        [event] = store.sweeps.events(sweep_id=sweep.id)
        assert (event.actor, event.what, event.trial_id, event.at) == ("ada", "submitted", None, NOW)

    def test_is_all_or_nothing(self, store: Store) -> None:
        unstorable = a_trial(1, seed=2**70)
        with pytest.raises(Exception, match=r"(?i)int"):
            store.sweeps.add_sweep(a_sweep(), [a_trial(0), unstorable], now=NOW)
        assert store.sweeps.sweeps() == []
        assert store.sweeps.events() == []

    def test_text_that_databases_refuse_is_made_fit(self, store: Store) -> None:
        sweep = move(store, add(store), S.CANCELLED, reason="said \0 and \ud800")
        assert sweep.reason == "said \u2400 and ?"


class TestFinding:
    def test_by_number_and_by_newest_of_a_name(self, store: Store) -> None:
        first, second = add(store), add(store)
        assert store.sweeps.find_sweep(str(first.id)) == first
        assert store.sweeps.find_sweep("routing") == second

    def test_a_number_wins_over_a_name_that_looks_like_one(self, store: Store) -> None:
        first = add(store)
        named = add(store, name=str(first.id))
        assert store.sweeps.find_sweep(str(first.id)) == first
        assert store.sweeps.find_sweep(str(named.id)) == named

    def test_names_the_nearest_when_there_is_none(self, store: Store) -> None:
        add(store, name="routing-quickstart")
        with pytest.raises(NotFound, match="did you mean routing-quickstart"):
            store.sweeps.find_sweep("routing-quikstart")

    @pytest.mark.parametrize("reference", ["7", "-1", "²", "9" * 30, "", "\0"])
    def test_nothing_is_not_found(self, store: Store, reference: str) -> None:
        with pytest.raises(NotFound):
            store.sweeps.find_sweep(reference)

    def test_unknown_number(self, store: Store) -> None:
        with pytest.raises(NotFound, match="no sweep 7"):
            store.sweeps.sweep(7)


class TestListing:
    def test_newest_first_by_project_and_state(self, store: Store) -> None:
        old, other, new = add(store), add(store, project="rnn"), add(store)
        move(store, old, S.CANCELLED)
        ids = [sweep.id for sweep in store.sweeps.sweeps()]
        assert ids == [new.id, other.id, old.id]
        assert [sweep.id for sweep in store.sweeps.sweeps(project="moe")] == [new.id, old.id]
        assert [sweep.id for sweep in store.sweeps.sweeps(states=[S.CANCELLED])] == [old.id]
        assert [sweep.id for sweep in store.sweeps.sweeps(limit=1)] == [new.id]
        assert store.sweeps.sweeps(project="none") == []

    def test_open_ones_by_priority_then_age(self, store: Store) -> None:
        low, high, low_too, ended = add(store, priority=1), add(store, priority=9), add(store, priority=1), add(store)
        move(store, ended, S.CANCELLED)
        assert [sweep.id for sweep in store.sweeps.open_sweeps()] == [high.id, low.id, low_too.id]

    def test_counts_every_state_of_sweeps_and_occurring_states_of_trials(self, store: Store) -> None:
        first, second = add(store, trials=3), add(store, trials=0)
        move(store, second, S.CANCELLED)
        store.trials.start_trial(store.trials.trials(first.id)[0].id, now=NOW)
        assert store.sweeps.counts() == {**dict.fromkeys(S, 0), S.QUEUED: 1, S.CANCELLED: 1}
        assert store.sweeps.counts(project="moe") == store.sweeps.counts()
        assert sum(store.sweeps.counts(project="nobody's").values()) == 0
        assert store.sweeps.trial_counts([first.id, second.id]) == {
            first.id: {TrialState.PENDING: 2, TrialState.RUNNING: 1},
            second.id: {},
        }

    def test_counts_of_trials_of_open_sweeps_alone(self, store: Store) -> None:
        queued, paused, ended, _ = (add(store, trials=count) for count in (3, 2, 1, 0))
        move(store, ended, S.CANCELLED)
        move(store, paused, S.PAUSED)
        counts = store.sweeps.open_trial_counts()
        assert counts == {queued.id: {TrialState.PENDING: 3}, paused.id: {TrialState.PENDING: 2}}


class TestExplaining:
    def test_writes_why_queued_sweeps_wait_and_makes_no_view_stale(self, store: Store) -> None:
        one, other, silent, started = (add(store) for _ in range(4))
        started = move(store, started, S.STARTING, reason="its turn")
        store.sweeps.explain({one.id: "waits for 4 GPUs", other.id: "behind 'one'\0 \\ {}", started.id: "never"})
        told = [store.sweeps.sweep(sweep.id) for sweep in (one, other, silent, started)]
        assert [sweep.reason for sweep in told] == ["waits for 4 GPUs", "behind 'one'\u2400 \\ {}", "", "its turn"]
        assert [sweep.version for sweep in told] == [one.version, other.version, silent.version, started.version]
        store.sweeps.explain({})


class TestMoving:
    def test_a_start_counts_the_attempt_writes_slots_and_tells_the_outbox(self, store: Store) -> None:
        clock = FakeClock()
        queued = add(store)
        started = store.sweeps.move_sweep(
            queued, S.STARTING, actor=Actor.COORDINATOR, reason="two slots are free", now=clock.now(), slots=2
        )
        assert (started.state, started.attempt, started.slots, started.version) == (S.STARTING, 1, 2, 2)
        assert (started.started_at, started.reason) == (clock.now(), "two slots are free")
        [item] = store.outbox.pending()
        assert (item.topic, item.sweep_id, item.payload["attempt"]) == (Topic.SWEEP_STARTED, queued.id, 1)

        running = move(store, started, S.RUNNING, ray_job_id="orch-1")
        assert (running.slots, running.ray_job_id) == (2, "orch-1")

        again = move(store, running, S.QUEUED, reason="preempted")
        assert (again.slots, again.attempt, again.ray_job_id) == (0, 1, "orch-1")
        restarted = move(store, again, S.STARTING, slots=1)
        assert (restarted.attempt, restarted.started_at) == (2, clock.now())

    def test_each_move_writes_its_event(self, store: Store) -> None:
        sweep = move(store, move(store, add(store), S.STARTING), S.RUNNING, reason="its driver is up")
        last = store.sweeps.events(sweep_id=sweep.id)[-1]
        assert (last.actor, last.what, last.reason) == ("coordinator", "starting -> running", "its driver is up")

    def test_a_stale_view_cannot_move_and_changes_nothing(self, store: Store) -> None:
        seen = add(store)
        moved = move(store, seen, S.STARTING)
        before = store.sweeps.events()
        with pytest.raises(StaleRow, match=r"seen at version 1 and is now at version 2, starting"):
            move(store, seen, S.CANCELLED)
        assert store.sweeps.sweep(seen.id) == moved
        assert store.sweeps.events() == before

    def test_a_wish_makes_older_views_stale(self, store: Store) -> None:
        seen = add(store)
        store.sweeps.wish(seen.id, Wish.CANCEL, user="ada", reason="wrong data", now=NOW)
        with pytest.raises(StaleRow, match="with the wish to cancel"):
            move(store, seen, S.STARTING)

    def test_refuses_what_the_table_does_not_have(self, store: Store) -> None:
        queued = add(store)
        with pytest.raises(IllegalMove):
            move(store, queued, S.SUCCEEDED)
        with pytest.raises(IllegalMove):
            store.sweeps.move_sweep(queued, S.STARTING, actor=Actor.DRIVER, reason="", now=NOW)
        assert store.sweeps.sweep(queued.id) == queued

    @pytest.mark.parametrize(
        ("end", "trial_end"),
        [
            (S.CANCELLED, TrialState.CANCELLED),
            (S.FAILED, TrialState.FAILED),
            (S.SUCCEEDED, TrialState.FAILED),
        ],
    )
    def test_an_end_closes_open_trials(self, store: Store, end: SweepState, trial_end: TrialState) -> None:
        sweep = move(store, add(store, trials=3), S.STARTING)
        pending, running, done = store.trials.trials(sweep.id)
        store.trials.start_trial(running.id, now=NOW)
        store.trials.start_trial(done.id, now=NOW)
        store.trials.end_trial(done.id, TrialState.SUCCEEDED, reason="all steps", now=NOW)
        told = len(store.outbox.pending())

        ended = move(store, sweep, end, reason="that is why")

        assert (ended.state, ended.ended_at, ended.slots) == (end, NOW, 0)
        closed = [store.trials.trial(trial.id) for trial in (pending, running)]
        assert {(trial.state, trial.reason, trial.ended_at) for trial in closed} == {(trial_end, "that is why", NOW)}
        assert store.trials.trial(done.id).reason == "all steps"
        items = store.outbox.pending()[told:]
        # The pending trial never started, so the tracker has never heard of it.
        assert [(item.topic, item.trial_id) for item in items] == [
            (Topic.TRIAL_ENDED, running.id),
            (Topic.SWEEP_ENDED, None),
        ]
        assert items[0].payload["state"] == trial_end
        assert items[1].payload["state"] == end
        closing = [
            event for event in store.sweeps.events() if event.what.endswith(f"-> {trial_end}") and event.trial_id
        ]
        assert {event.trial_id for event in closing} == {pending.id, running.id}

    @pytest.mark.parametrize("to", [S.QUEUED, S.PAUSED])
    def test_a_sweep_that_waits_again_has_no_running_trials(self, store: Store, to: SweepState) -> None:
        sweep = move(store, move(store, add(store, trials=3), S.STARTING), S.RUNNING)
        _, running, done = store.trials.trials(sweep.id)
        store.trials.start_trial(running.id, now=NOW)
        store.trials.start_trial(done.id, now=NOW)
        store.trials.end_trial(done.id, TrialState.SUCCEEDED, reason="all steps", now=NOW)

        move(store, sweep, to, reason="its driver was lost")

        states = [trial.state for trial in store.trials.trials(sweep.id)]
        assert states == [TrialState.PENDING, TrialState.PENDING, TrialState.SUCCEEDED]
        told = [event for event in store.sweeps.events() if event.what == "running -> pending"]
        assert [(event.trial_id, event.reason) for event in told] == [(running.id, "its driver was lost")]

    def test_the_end_of_what_never_started_is_not_told(self, store: Store) -> None:
        move(store, add(store), S.CANCELLED)
        assert store.outbox.pending() == []

    def test_ended_sweeps_are_the_ones_without_a_way_on(self, store: Store) -> None:
        ended = move(store, add(store), S.CANCELLED)
        assert ended.state in SWEEP_ENDS
        with pytest.raises(IllegalMove):
            move(store, ended, S.QUEUED)


class TestAllotting:
    def test_changes_slots_and_reason(self, store: Store) -> None:
        sweep = move(store, add(store), S.STARTING, slots=2)
        store.sweeps.allot(sweep.id, 1, "another sweep needs the rest")
        after = store.sweeps.sweep(sweep.id)
        assert (after.slots, after.reason, after.version) == (1, "another sweep needs the rest", sweep.version + 1)

    def test_the_same_again_writes_nothing(self, store: Store) -> None:
        sweep = move(store, add(store), S.STARTING, slots=2)
        store.sweeps.allot(sweep.id, 2, sweep.reason)
        assert store.sweeps.sweep(sweep.id) == sweep

    def test_an_ended_sweep_stays_as_it_is(self, store: Store) -> None:
        ended = move(store, add(store), S.CANCELLED)
        store.sweeps.allot(ended.id, 3, "late")
        assert store.sweeps.sweep(ended.id) == ended

    def test_unknown(self, store: Store) -> None:
        with pytest.raises(NotFound):
            store.sweeps.allot(5, 1, "")


class TestWishing:
    def test_is_kept_with_its_event(self, store: Store) -> None:
        sweep = store.sweeps.wish(add(store).id, Wish.PAUSE, user="grace", reason="needs the GPUs", now=NOW)
        assert (sweep.wish, sweep.state, sweep.version) == (Wish.PAUSE, S.QUEUED, 2)
        event = store.sweeps.events(sweep_id=sweep.id)[-1]
        assert (event.actor, event.what, event.reason) == ("grace", "asked to pause", "needs the GPUs")

    def test_the_same_wish_again_changes_nothing(self, store: Store) -> None:
        first = store.sweeps.wish(add(store).id, Wish.CANCEL, user="ada", reason="x", now=NOW)
        again = store.sweeps.wish(first.id, Wish.CANCEL, user="ada", reason="y", now=NOW)
        assert again == first
        assert len(store.sweeps.events()) == 2

    def test_an_ended_sweep_has_none(self, store: Store) -> None:
        ended = move(store, add(store), S.CANCELLED)
        before = store.sweeps.events()
        assert store.sweeps.wish(ended.id, Wish.PAUSE, user="ada", reason="", now=NOW) == ended
        assert store.sweeps.events() == before

    def test_unknown(self, store: Store) -> None:
        with pytest.raises(NotFound):
            store.sweeps.wish(5, Wish.CANCEL, user="ada", reason="", now=NOW)


class TestEvents:
    def test_in_order_after_a_number_by_sweep(self, store: Store) -> None:
        first, second = add(store), add(store)
        move(store, first, S.STARTING)
        events = store.sweeps.events()
        assert [event.sweep_id for event in events] == [first.id, second.id, first.id]
        assert store.sweeps.events(after=events[0].id) == events[1:]
        assert store.sweeps.events(sweep_id=first.id) == [events[0], events[2]]
        assert store.sweeps.events(limit=1) == events[:1]

    def test_reports_write_none(self, store: Store) -> None:
        trial = store.trials.trials(add(store).id)[0]
        before = store.sweeps.events()
        store.trials.record([a_report(trial.id, 1)])
        assert store.sweeps.events() == before
