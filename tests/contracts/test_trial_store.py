"""What every TrialStore promises."""

import pytest

from orchestrator.errors import IllegalMove, NotFound
from orchestrator.lifecycle import TRIAL_ENDS, Actor, SweepState, TrialState, Wish
from orchestrator.records import Facts, Healthy, Report, Topic, Trial
from orchestrator.store import Store
from tests.support.builders import NOW, a_report, a_sweep, a_trial, some_trials
from tests.support.clock import FakeClock

T = TrialState


def planned(store: Store, count: int = 1, **changes: object) -> list[Trial]:
    sweep = store.sweeps.add_sweep(a_sweep(**changes), some_trials(count), now=NOW)
    return store.trials.trials(sweep.id)


def started(store: Store, **changes: object) -> Trial:
    return store.trials.start_trial(planned(store, **changes)[0].id, now=NOW)


class TestPlanning:
    def test_gives_back_what_went_in(self, store: Store) -> None:
        params = {"text": "topk", "like": "true", "truth": True, "none": None, "int": 3, "float": 0.1, "big": 2**60 + 1}
        config = {"model": {"d_model": 64, "clip": float("inf")}, "list": [1, [2.5, None]]}
        new = a_trial(7, seed=2**62, params=params, config=config, config_hash="abc")
        sweep = store.sweeps.add_sweep(a_sweep(), [new], now=NOW)
        [trial] = store.trials.trials(sweep.id)
        assert trial == store.trials.trial(trial.id)
        assert (trial.sweep_id, trial.number, trial.seed, trial.config_hash) == (sweep.id, 7, 2**62, "abc")
        assert trial.config == config
        assert {name: (type(value), value) for name, value in trial.params.items()} == {
            name: (type(value), value) for name, value in params.items()
        }
        assert (trial.state, trial.attempt, trial.failures, trial.step) == (T.PENDING, 0, 0, 0)
        assert (trial.metrics, trial.best, trial.best_step, trial.checkpoint_path) == ({}, None, None, None)

    def test_adding_a_number_again_returns_the_old_trial(self, store: Store) -> None:
        first = planned(store)[0]
        changed = a_trial(0, seed=99)
        again, new = store.trials.add_trials(first.sweep_id, [changed, a_trial(4)], now=NOW)
        assert again == first
        assert (new.number, new.state) == (4, T.PENDING)
        assert store.trials.add_trials(first.sweep_id, [a_trial(4)], now=NOW) == [new]
        assert [trial.number for trial in store.trials.trials(first.sweep_id)] == [0, 4]
        proposals = [event for event in store.sweeps.events() if "proposed" in event.what]
        assert len(proposals) == 1

    def test_unknown(self, store: Store) -> None:
        with pytest.raises(NotFound, match="no trial 3"):
            store.trials.trial(3)
        with pytest.raises(NotFound, match="no sweep 3"):
            store.trials.add_trials(3, [a_trial(0)], now=NOW)
        assert store.trials.trials(3) == []


class TestStarting:
    def test_counts_the_attempt_with_event_and_outbox_item(self, store: Store) -> None:
        trial = started(store)
        assert (trial.state, trial.attempt, trial.started_at) == (T.RUNNING, 1, NOW)
        event = store.sweeps.events()[-1]
        assert (event.actor, event.what, event.trial_id) == (Actor.DRIVER, "pending -> running", trial.id)
        [item] = store.outbox.pending()
        assert (item.topic, item.trial_id, item.payload["attempt"]) == (Topic.TRIAL_STARTED, trial.id, 1)

    def test_only_a_pending_trial_starts(self, store: Store) -> None:
        trial = started(store)
        with pytest.raises(IllegalMove, match="from running to running"):
            store.trials.start_trial(trial.id, now=NOW)
        assert store.trials.trial(trial.id) == trial
        assert len(store.outbox.pending()) == 1

    def test_the_first_start_stays_the_start(self, store: Store) -> None:
        clock = FakeClock()
        trial = planned(store)[0]
        store.trials.start_trial(trial.id, now=clock.now())
        store.trials.end_trial(trial.id, T.PENDING, reason="its worker was lost", now=clock.now())
        again = store.trials.start_trial(trial.id, now=clock.advance(hours=1))
        assert (again.attempt, again.started_at, again.reason) == (2, FakeClock().now(), "")


class TestDescribing:
    def test_size(self, store: Store) -> None:
        trial = planned(store)[0]
        size = Facts(params_count=5 * 10**9, active_params=10**9, flops_per_token=6e9)
        store.trials.record([], facts={trial.id: size})
        after = store.trials.trial(trial.id)
        assert (after.params_count, after.active_params, after.flops_per_token) == (5 * 10**9, 10**9, 6e9)

    def test_unknown(self, store: Store) -> None:
        with pytest.raises(NotFound):
            store.trials.record([], facts={3: {"params_count": 1}})


class TestRecording:
    def test_last_best_and_step(self, store: Store) -> None:
        trial = started(store)
        values = {10: 4.0, 20: 2.0, 30: 3.0}
        store.trials.record([a_report(trial.id, s, val_bpb=v, loss=v * 2) for s, v in values.items()])
        after = store.trials.trial(trial.id)
        assert after.metrics == {"val_bpb": 3.0, "loss": 6.0}
        assert (after.step, after.best, after.best_step) == (30, 2.0, 20)
        assert store.trials.curve(trial.id, "val_bpb") == sorted(values.items())
        assert store.trials.curve(trial.id, "unheard") == []

    def test_a_maximized_metric_is_best_at_its_top(self, store: Store) -> None:
        trial = started(store, metric="accuracy", goal="maximize")
        for step, value in enumerate([0.2, 0.9, 0.5]):
            store.trials.record([a_report(trial.id, step, accuracy=value)])
        after = store.trials.trial(trial.id)
        assert (after.best, after.best_step, after.metrics["accuracy"]) == (0.9, 1, 0.5)

    def test_of_equally_good_points_the_first_is_best(self, store: Store) -> None:
        trial = started(store)
        store.trials.record([a_report(trial.id, 2, val_bpb=1.0), a_report(trial.id, 1, val_bpb=1.0)])
        store.trials.record([a_report(trial.id, 3, val_bpb=1.0)])
        assert store.trials.trial(trial.id).best_step == 1

    def test_again_changes_nothing(self, store: Store) -> None:
        trial = started(store)
        reports = [a_report(trial.id, step) for step in range(5)]
        store.trials.record(reports)
        before, told = store.trials.trial(trial.id), store.outbox.pending()
        store.trials.record(reports)
        store.trials.record(reports[:2] + reports[:2])
        store.trials.record([a_report(trial.id, 1, val_bpb=0.0)])
        assert store.trials.trial(trial.id) == before
        assert store.outbox.pending() == told

    def test_a_batch_that_overlaps_the_last_adds_what_is_new(self, store: Store) -> None:
        trial = started(store)
        store.trials.record([a_report(trial.id, step) for step in range(3)])
        store.trials.record([a_report(trial.id, step) for step in range(1, 5)])
        told = [item.payload["step"] for item in store.outbox.pending() if item.topic is Topic.REPORT]
        assert told == [0, 1, 2, 3, 4]
        assert [step for step, _ in store.trials.curve(trial.id, "val_bpb")] == [0, 1, 2, 3, 4]

    def test_a_report_twice_in_one_batch_counts_once(self, store: Store) -> None:
        trial = started(store)
        store.trials.record([a_report(trial.id, 1), a_report(trial.id, 1)])
        assert [item.topic for item in store.outbox.pending()] == [Topic.TRIAL_STARTED, Topic.REPORT]

    def test_the_latest_attempt_has_the_last_word(self, store: Store) -> None:
        trial = started(store)
        store.trials.record([a_report(trial.id, step, val_bpb=9.0 - step) for step in (1, 2, 3)])
        store.trials.end_trial(trial.id, T.PENDING, reason="preempted", now=NOW)
        store.trials.start_trial(trial.id, now=NOW)
        store.trials.record([a_report(trial.id, 2, attempt=2, val_bpb=7.5)])
        after = store.trials.trial(trial.id)
        assert (after.step, after.metrics["val_bpb"]) == (2, 7.5)
        assert (after.best, after.best_step) == (6.0, 3)
        assert store.trials.curve(trial.id, "val_bpb") == [(1, 8.0), (2, 7.5), (3, 6.0)]

        store.trials.record([a_report(trial.id, 4, val_bpb=5.5)])  # late words of the attempt that was lost
        late = store.trials.trial(trial.id)
        assert (late.step, late.metrics["val_bpb"], late.best) == (2, 7.5, 5.5)

    def test_remembers_the_newest_checkpoint(self, store: Store) -> None:
        one, other = planned(store, 2)
        paths = {one.id: Facts(checkpoint_path="/a/1"), other.id: Facts(checkpoint_path="/b/1")}
        store.trials.record([a_report(one.id, 1)], facts=paths)
        store.trials.record([], facts={one.id: {"checkpoint_path": "/a/2"}})
        assert [trial.checkpoint_path for trial in store.trials.trials(one.sweep_id)] == ["/a/2", "/b/1"]

    def test_a_report_without_metrics_moves_the_step_alone(self, store: Store) -> None:
        trial = started(store)
        told = store.outbox.pending()
        store.trials.record([Report(trial_id=trial.id, attempt=1, step=9, metrics={}, at=NOW)])
        assert store.trials.trial(trial.id).step == 9
        assert store.outbox.pending() == told

    def test_the_outbox_gets_step_metrics_attempt_and_time(self, store: Store) -> None:
        trial = started(store)
        store.trials.record([a_report(trial.id, 3, val_bpb=2.5, loss=1.5)])
        item = store.outbox.pending()[-1]
        assert (item.topic, item.sweep_id, item.trial_id) == (Topic.REPORT, trial.sweep_id, trial.id)
        assert item.payload == {
            "attempt": 1,
            "step": 3,
            "metrics": {"val_bpb": 2.5, "loss": 1.5},
            "at": NOW.isoformat(),
        }

    def test_an_alarm_becomes_one_event_when_it_begins_and_one_when_it_ends(self, store: Store) -> None:
        trial = started(store)

        def report(step: int, layers: float, attempt: int = 1) -> Report:
            return a_report(trial.id, step, attempt=attempt, **{"health/expert_dead": layers})

        for _ in range(2):
            store.trials.record([report(1, 0.0), report(2, 1.0)])
        store.trials.end_trial(trial.id, T.PENDING, reason="lost", now=NOW)
        store.trials.start_trial(trial.id, now=NOW)
        store.trials.record([report(2, 1.0, attempt=2), report(3, 1.0, attempt=2)])
        store.trials.record([report(4, 0.0, attempt=2)])
        told = [
            (event.trial_id, event.actor, event.what, event.reason)
            for event in store.sweeps.events(sweep_id=trial.sweep_id)
            if "alarm" in event.what
        ]
        assert told == [
            (trial.id, Actor.DRIVER, "alarm: expert_dead", "in 1 layer at step 2"),
            (trial.id, Actor.DRIVER, "alarm over: expert_dead", "since step 4"),
        ]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_refuses_numbers_that_are_not_finite_with_all_their_batch(self, store: Store, value: float) -> None:
        trial = started(store)
        with pytest.raises(ValueError, match=r"metric 'loss' of trial \d+ at step 2 is"):
            store.trials.record([a_report(trial.id, 1), a_report(trial.id, 2, loss=value)])
        assert store.trials.trial(trial.id).metrics == {}

    def test_refuses_a_trial_that_is_not_there_with_all_its_batch(self, store: Store) -> None:
        trial = started(store)
        with pytest.raises(NotFound, match="no trial 999"):
            store.trials.record([a_report(trial.id, 1), a_report(999, 1)])
        assert store.trials.trial(trial.id).metrics == {}

    def test_a_large_batch_is_one_transaction(self, store: Store) -> None:
        trials = planned(store, 20)
        reports = [a_report(trial.id, step, val_bpb=1.0, loss=2.0) for trial in trials for step in range(150)]
        store.trials.record(reports)
        assert [len(store.trials.curve(trial.id, "loss")) for trial in trials] == [150] * 20
        assert store.outbox.size() == len(reports)


class TestEnding:
    @pytest.mark.parametrize("end", sorted(TRIAL_ENDS - {T.CANCELLED}))
    def test_an_end_is_written_told_and_final(self, store: Store, end: TrialState) -> None:
        trial = started(store)
        ended = store.trials.end_trial(trial.id, end, reason="why", now=NOW, checkpoint_path="/c")
        assert (ended.state, ended.reason, ended.ended_at, ended.checkpoint_path) == (end, "why", NOW, "/c")
        item = store.outbox.pending()[-1]
        assert (item.topic, item.trial_id, item.payload["state"]) == (Topic.TRIAL_ENDED, trial.id, end)
        assert store.sweeps.events()[-1].what == f"running -> {end}"
        with pytest.raises(IllegalMove):
            store.trials.end_trial(trial.id, T.PENDING, reason="", now=NOW)

    def test_cancelling_what_waits_is_not_the_drivers(self, store: Store) -> None:
        [trial] = planned(store)
        with pytest.raises(IllegalMove):
            store.trials.end_trial(trial.id, T.CANCELLED, reason="", now=NOW)

    def test_another_attempt_is_no_end(self, store: Store) -> None:
        trial = started(store)
        told = store.outbox.pending()
        waiting = store.trials.end_trial(trial.id, T.PENDING, reason="raised ValueError", now=NOW, own_failure=True)
        assert (waiting.state, waiting.failures, waiting.attempt, waiting.ended_at) == (T.PENDING, 1, 1, None)
        assert store.outbox.pending() == told

    def test_infrastructure_losses_are_not_own_failures(self, store: Store) -> None:
        trial = started(store)
        assert store.trials.end_trial(trial.id, T.PENDING, reason="node lost", now=NOW).failures == 0

    def test_a_driver_that_another_followed_ends_nothing_of_its_attempt(self, store: Store) -> None:
        trial = started(store)
        store.trials.requeue_trials(trial.sweep_id, reason="a new driver took over", now=NOW)
        store.trials.start_trial(trial.id, now=NOW)
        with pytest.raises(IllegalMove, match="in attempt 2; what ended was its attempt 1"):
            store.trials.end_trial(trial.id, T.FAILED, reason="", now=NOW, attempt=1)
        assert store.trials.trial(trial.id).state is T.RUNNING
        assert store.trials.end_trial(trial.id, T.SUCCEEDED, reason="", now=NOW, attempt=2).state is T.SUCCEEDED

    def test_a_start_is_no_end(self, store: Store) -> None:
        with pytest.raises(IllegalMove, match="does not move a trial to running"):
            store.trials.end_trial(started(store).id, T.RUNNING, reason="", now=NOW)

    def test_unknown(self, store: Store) -> None:
        with pytest.raises(NotFound):
            store.trials.end_trial(9, T.FAILED, reason="", now=NOW)


class TestRequeueing:
    def test_interrupted_trials_wait_again_and_ended_ones_stay(self, store: Store) -> None:
        pending, running, done = planned(store, 3)
        store.trials.start_trial(running.id, now=NOW)
        store.trials.start_trial(done.id, now=NOW)
        store.trials.end_trial(done.id, T.STOPPED, reason="pruned", now=NOW)
        told = store.outbox.pending()

        opened = store.trials.requeue_trials(pending.sweep_id, reason="its driver was lost", now=NOW)

        assert [(trial.id, trial.state, trial.attempt) for trial in opened] == [
            (pending.id, T.PENDING, 0),
            (running.id, T.PENDING, 1),
        ]
        assert opened[1].reason == "its driver was lost"
        assert store.trials.trial(done.id).state is T.STOPPED
        assert store.sweeps.events()[-1].what == "running -> pending"
        assert store.outbox.pending() == told

    def test_twice_is_once(self, store: Store) -> None:
        trial = started(store)
        first = store.trials.requeue_trials(trial.sweep_id, reason="lost", now=NOW)
        events = store.sweeps.events()
        assert store.trials.requeue_trials(trial.sweep_id, reason="lost", now=NOW) == first
        assert store.sweeps.events() == events

    def test_other_sweeps_are_left_alone(self, store: Store) -> None:
        mine, other = started(store), started(store)
        store.trials.requeue_trials(mine.sweep_id, reason="lost", now=NOW)
        assert store.trials.trial(other.id).state is T.RUNNING

    def test_a_trial_closed_by_the_coordinator_is_not_the_drivers_any_more(self, store: Store) -> None:
        sweep = store.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
        starting = store.sweeps.move_sweep(sweep, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW)
        [trial] = store.trials.trials(sweep.id)
        store.trials.start_trial(trial.id, now=NOW)
        store.sweeps.move_sweep(starting, SweepState.CANCELLED, actor=Actor.COORDINATOR, reason="asked", now=NOW)
        with pytest.raises(IllegalMove, match="from cancelled to succeeded"):
            store.trials.end_trial(trial.id, T.SUCCEEDED, reason="", now=NOW)
        assert store.trials.requeue_trials(sweep.id, reason="", now=NOW) == []


class TestScores:
    """`trial.score`: the ranking metric over the whole curve."""

    @pytest.mark.parametrize(
        ("words", "goal", "score"),
        [
            ({}, "minimize", 4.0),
            ({"aggregate": "last"}, "maximize", 4.0),
            ({"aggregate": "best"}, "minimize", 1.0),
            ({"aggregate": "best"}, "maximize", 4.0),
            ({"aggregate": "mean_last_k", "k": 3}, "minimize", 7 / 3),
        ],
    )
    def test_follow_the_reports_as_the_sweep_says(
        self, store: Store, words: dict[str, object], goal: str, score: float
    ) -> None:
        trial = started(store, spec={"metric": words}, goal=goal)
        assert trial.score is None
        for step, value in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 4.0)):
            store.trials.record([a_report(trial.id, step, val_bpb=value, other=9.0)])
        assert store.trials.trial(trial.id).score == pytest.approx(score)

    def test_after_a_rewind_the_healthy_part_alone_counts(self, store: Store) -> None:
        trial = started(store, spec={"metric": {"aggregate": "mean_last_k", "k": 2}})
        for step, value in ((10, 3.0), (20, 1.0), (30, 9.0)):
            store.trials.record([a_report(trial.id, step, val_bpb=value)])
        ended = store.trials.end_trial(trial.id, T.STOPPED, reason="", now=NOW, healthy=Healthy(until=20))
        assert (ended.score, ended.metrics["val_bpb"]) == (2.0, 9.0)

    def test_without_a_healthy_report_there_is_none(self, store: Store) -> None:
        trial = started(store)
        store.trials.record([a_report(trial.id, 10, val_bpb=3.0)])
        ended = store.trials.end_trial(trial.id, T.STOPPED, reason="", now=NOW, healthy=Healthy(until=None))
        assert ended.score is None


class TestHolding:
    def test_adds_up_the_attempts_that_are_over(self, store: Store) -> None:
        first, second = planned(store, 2)
        clock = FakeClock()
        assert store.trials.held_s(first.sweep_id) == 0
        for trial in (first, second):
            store.trials.start_trial(trial.id, now=clock.now())
        store.trials.end_trial(first.id, T.PENDING, reason="lost", now=clock.advance(seconds=10))
        store.trials.start_trial(first.id, now=clock.advance(seconds=100))
        store.trials.end_trial(first.id, T.SUCCEEDED, reason="", now=clock.advance(seconds=5))
        assert store.trials.held_s(first.sweep_id) == 15
        store.trials.requeue_trials(first.sweep_id, reason="", now=clock.advance(seconds=1))
        assert store.trials.held_s(first.sweep_id) == 15 + 116


class TestWishes:
    """What people want of single trials."""

    def wish(self, store: Store, trial: Trial, wish: Wish) -> Trial:
        return store.trials.wish(trial.id, wish, user="ada", reason=f"{wish} by ada", now=NOW)

    def test_of_what_waits_come_true_at_once_with_their_event(self, store: Store) -> None:
        first, second = planned(store, 2)
        assert self.wish(store, first, Wish.PAUSE).state is T.PAUSED
        assert self.wish(store, first, Wish.PAUSE).state is T.PAUSED
        assert store.trials.waiting(first.sweep_id) == {second.id}
        assert self.wish(store, first, Wish.RUN).state is T.PENDING
        assert self.wish(store, first, Wish.CANCEL).state is T.CANCELLED
        assert self.wish(store, first, Wish.RUN).state is T.CANCELLED
        events = [(e.actor, e.what) for e in store.sweeps.events() if e.trial_id == first.id]
        assert events == [
            ("ada", "pending -> paused"), ("ada", "paused -> pending"), ("ada", "pending -> cancelled"),
        ]  # fmt: skip

    def test_of_what_runs_wait_for_its_driver_and_end_with_the_run(self, store: Store) -> None:
        trial = started(store)
        assert self.wish(store, trial, Wish.PAUSE).state is T.RUNNING
        assert store.trials.wishes(trial.sweep_id)[trial.id].wish is Wish.PAUSE
        self.wish(store, trial, Wish.CANCEL)
        assert store.trials.wishes(trial.sweep_id)[trial.id].reason == "cancel by ada"
        store.trials.end_trial(trial.id, T.CANCELLED, reason="cancel by ada", now=NOW)
        assert store.trials.wishes(trial.sweep_id) == {}

    def test_that_are_taken_back_are_forgotten(self, store: Store) -> None:
        trial = started(store)
        self.wish(store, trial, Wish.PAUSE)
        self.wish(store, trial, Wish.RUN)
        assert store.trials.wishes(trial.sweep_id) == {}

    @pytest.mark.parametrize(("wish", "state"), [(Wish.PAUSE, T.PAUSED), (Wish.CANCEL, T.CANCELLED)])
    def test_come_true_when_the_driver_is_lost(self, store: Store, wish: Wish, state: TrialState) -> None:
        first, second = planned(store, 2)
        for trial in (first, second):
            store.trials.start_trial(trial.id, now=NOW)
        self.wish(store, first, wish)
        assert [t.id for t in store.trials.requeue_trials(first.sweep_id, reason="lost", now=NOW)] == [second.id]
        assert store.trials.trial(first.id).state is state
        ends = [item for item in store.outbox.pending() if item.topic is Topic.TRIAL_ENDED]
        assert len(ends) == (state in TRIAL_ENDS)

    def test_a_retry_of_one_trial_leaves_the_others(self, store: Store) -> None:
        trials = planned(store, 2)
        for trial in trials:
            self.wish(store, trial, Wish.CANCEL)
        sweep = store.sweeps.sweep(trials[0].sweep_id)
        store.sweeps.retry(sweep, user="ada", now=NOW, trial_id=trials[1].id)
        assert [t.state for t in store.trials.trials(sweep.id)] == [T.CANCELLED, T.PENDING]


def test_drained_nodes_are_remembered_until_they_come_back_and_each_change_is_an_event(store: Store) -> None:
    for node in ("a", "b", "a"):
        store.nodes.drain(node, name=f"node-{node}", user="ada", now=NOW)
    assert store.nodes.drained() == {"a", "b"}
    for _ in range(2):
        store.nodes.undrain("a", name="node-a", user="bob", now=NOW)
    assert store.nodes.drained() == {"b"}
    assert [(e.sweep_id, e.trial_id, e.actor, e.what, e.reason) for e in store.sweeps.events_of_no_sweep()] == [
        (None, None, "ada", "drained node node-a", "its id is a"),
        (None, None, "ada", "drained node node-b", "its id is b"),
        (None, None, "bob", "undrained node node-a", "its id is a"),
    ]
