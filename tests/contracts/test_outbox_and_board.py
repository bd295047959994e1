"""What every Outbox and every BoardStore promises."""

from orchestrator.lifecycle import TrialState
from orchestrator.records import Topic, Trial
from orchestrator.store import Store
from tests.support.builders import NOW, a_report, a_sweep, some_trials


def a_run(store: Store, count: int = 1, **changes: object) -> list[Trial]:
    sweep = store.sweeps.add_sweep(a_sweep(**changes), some_trials(count), now=NOW)
    return [store.trials.start_trial(trial.id, now=NOW) for trial in store.trials.trials(sweep.id)]


class TestOutbox:
    def test_oldest_first_and_in_the_order_of_what_happened(self, store: Store) -> None:
        [trial] = a_run(store)
        store.trials.record([a_report(trial.id, step) for step in range(3)])
        store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
        items = store.outbox.pending()
        assert [item.topic for item in items] == [
            Topic.TRIAL_STARTED,
            Topic.REPORT,
            Topic.REPORT,
            Topic.REPORT,
            Topic.TRIAL_ENDED,
        ]
        assert [item.payload["step"] for item in items if item.topic is Topic.REPORT] == [0, 1, 2]
        assert [item.id for item in items] == sorted(item.id for item in items)
        assert store.outbox.pending(limit=2) == items[:2]

    def test_what_a_resumed_trial_says_again_is_told_once_and_what_came_out_otherwise_is_told(
        self, store: Store
    ) -> None:
        [trial] = a_run(store)
        store.trials.record([a_report(trial.id, step, val_bpb=9.0 - step, speed=1.0) for step in (1, 2, 3)])
        store.trials.end_trial(trial.id, TrialState.PENDING, reason="its worker was lost", now=NOW)
        store.trials.start_trial(trial.id, now=NOW)
        store.outbox.sent([item.id for item in store.outbox.pending()])
        again = [
            a_report(trial.id, step, attempt=2, val_bpb=9.0 - step, speed=speed) for step, speed in ((2, 1.0), (3, 1.5))
        ]
        store.trials.record([*again, a_report(trial.id, 4, attempt=2, val_bpb=5.0, speed=1.0)])
        told = {item.payload["step"]: item.payload["metrics"] for item in store.outbox.pending()}
        assert told == {3: {"speed": 1.5}, 4: {"val_bpb": 5.0, "speed": 1.0}}

    def test_only_what_was_sent_is_forgotten(self, store: Store) -> None:
        [trial] = a_run(store)
        store.trials.record([a_report(trial.id, step) for step in range(3)])
        items = store.outbox.pending()
        store.outbox.sent([items[0].id, items[2].id])
        assert store.outbox.pending() == [items[1], items[3]]
        store.outbox.sent([])
        assert store.outbox.size() == 2

    def test_a_late_acknowledgement_does_not_forget_a_newer_item(self, store: Store) -> None:
        [trial] = a_run(store)
        first = [item.id for item in store.outbox.pending()]
        store.outbox.sent(first)
        store.trials.record([a_report(trial.id, 1)])
        store.outbox.sent(first)
        assert store.outbox.size() == 1

    def test_size_in_all_and_of_one_sweep(self, store: Store) -> None:
        one, other = a_run(store), a_run(store, 2)
        assert store.outbox.size() == 3
        assert store.outbox.size(one[0].sweep_id) == 1
        assert store.outbox.size(other[0].sweep_id) == 2
        assert store.outbox.size(99) == 0

    def test_links_show_in_sweeps_and_trials_and_make_no_view_stale(self, store: Store) -> None:
        [trial] = a_run(store)
        before = store.sweeps.sweep(trial.sweep_id)
        store.outbox.link_sweep(trial.sweep_id, "parent")
        store.outbox.link_trial(trial.id, "child")
        after = store.sweeps.sweep(trial.sweep_id)
        assert (after.mlflow_run_id, after.version) == ("parent", before.version)
        assert store.trials.trial(trial.id).mlflow_run_id == "child"


class TestBoard:
    def test_trials_with_a_result_newest_first(self, store: Store) -> None:
        succeeded, stopped, failed, running = a_run(store, 4)
        store.trials.record([a_report(trial.id, 1) for trial in (succeeded, stopped, failed, running)])
        store.trials.end_trial(succeeded.id, TrialState.SUCCEEDED, reason="", now=NOW)
        store.trials.end_trial(stopped.id, TrialState.STOPPED, reason="", now=NOW)
        store.trials.end_trial(failed.id, TrialState.FAILED, reason="", now=NOW)
        ranked = store.board.board_trials()
        assert [trial.id for trial in ranked] == [stopped.id, succeeded.id]
        assert ranked[1] == store.trials.trial(succeeded.id)
        with_running = store.board.board_trials(states=[TrialState.SUCCEEDED, TrialState.RUNNING])
        assert [trial.id for trial in with_running] == [running.id, succeeded.id]

    def test_a_trial_that_never_reported_is_not_ranked(self, store: Store) -> None:
        [trial] = a_run(store)
        store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
        assert store.board.board_trials() == []

    def test_by_project_and_sweep(self, store: Store) -> None:
        groups = {name: a_run(store, 2, project=name) for name in ("moe", "rnn")}
        for trial in [*groups["moe"], *groups["rnn"]]:
            store.trials.record([a_report(trial.id, 1)])
            store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
        of_moe = {trial.id for trial in groups["moe"]}
        assert {trial.id for trial in store.board.board_trials(project="moe")} == of_moe
        assert {trial.id for trial in store.board.board_trials(sweep_id=groups["moe"][0].sweep_id)} == of_moe
        assert store.board.board_trials(project="rnn", sweep_id=groups["moe"][0].sweep_id) == []
        assert len(store.board.board_trials(limit=3)) == 3
