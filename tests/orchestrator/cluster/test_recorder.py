"""What is written when, and what Tune is told; a real store and Tune's real ASHA, no cluster."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from orchestrator.aggregate import Aggregate
from orchestrator.cluster import search
from orchestrator.cluster.guards import Limits, StopIf, keeping_healthy
from orchestrator.cluster.logpolicies import LogPolicies, nodes_left
from orchestrator.cluster.messages import Ended, Outcome, Reported, Started
from orchestrator.cluster.people import People
from orchestrator.cluster.recorder import LOSSES_WITHOUT_PROGRESS, Recorder, RecordingScheduler
from orchestrator.cluster.seeds import SeedGroups
from orchestrator.cluster.trainable import HAPPENING
from orchestrator.lifecycle import Actor, SweepState, TrialState, Wish
from orchestrator.records import Sweep
from orchestrator.store import Store, open_store
from tests.support.builders import NOW, a_sweep, a_trial
from tests.support.clock import FakeClock

ASHA = {"type": "asha", "grace_steps": 10, "reduction_factor": 2}
CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


class Bench:
    """A sweep of `count` trials under a recording scheduler, and what its trials say."""

    def __init__(self, store: Store, count: int, **spec: Any) -> None:
        self.store = store
        trials = [a_trial(n, config={"training": {"steps": 100}}) for n in range(count)]
        added = store.sweeps.add_sweep(a_sweep(spec={"retries": 0} | spec), trials, now=NOW)
        self.sweep: Sweep = store.sweeps.move_sweep(
            added, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW, slots=1
        )
        self.ids = [trial.id for trial in store.trials.trials(self.sweep.id)]
        self.freed: list[int] = []
        self.clock = FakeClock(NOW)
        self.left: set[str] = set()
        self.drained: frozenset[str] = frozenset()
        self.again: list[int] = []
        self.seconds = itertools.count()
        self.directory = Path(str(store.database.url.database)).parent
        self.take_over()

    def take_over(self) -> None:
        """A new driver: nothing remembered, all from SQL."""
        trials = self.store.trials.requeue_trials(self.sweep.id, reason="new driver", now=NOW)
        known = self.store.trials.trials(self.sweep.id)
        self.inner = search.early_stopping(self.sweep, known)
        rule = SeedGroups(self.inner, self.sweep.metric)
        worth = Aggregate.of(self.sweep.spec, self.sweep.goal)
        rule.replay([(t, worth.running(self.store.trials.curve(t.id, self.sweep.metric))) for t in known])
        self.limits = Limits(self.sweep, self.store.trials, self.clock)
        policies = LogPolicies(self.sweep, lambda trial: self.directory / str(trial.id))
        recorder = Recorder(self.store.trials, self.sweep, trials, self.clock, self.limits, policies, self.leave)
        self.scheduler = RecordingScheduler(
            rule,
            recorder,
            self.sweep,
            free_slot=self.freed.append,
            stop_if=StopIf(self.sweep, self.store.trials, lambda trial: self.directory / str(trial.id)),
            limits=self.limits,
            again=lambda trial: self.again.append(trial.id),
            people=People(self.sweep.id, self.store.trials, lambda: self.drained, now_s=lambda: next(self.seconds)),
        )
        for trial in trials:
            self.scheduler.on_trial_add(None, self.tune(self.ids.index(trial.id)))

    def leave(self, node: str) -> bool:
        """There are two nodes."""
        others = {"node-1", "node-2"} - self.left - {node}
        if others:
            self.left.add(node)
        return bool(others)

    def tune(self, n: int) -> Any:
        return SimpleNamespace(trial_id=str(self.ids[n]))

    def say(self, n: int, happening: object) -> str:
        decision = self.scheduler.on_trial_result(None, self.tune(n), {HAPPENING: happening})
        if decision == STOP:
            self.scheduler.on_trial_complete(None, self.tune(n), {})
        return decision

    def start(self, n: int, *nodes: str) -> None:
        assert self.say(n, Started(where="slot-0", nodes=nodes)) == CONTINUE

    def report(self, n: int, step: int, value: float, **metrics: float) -> str:
        return self.say(n, Reported(step=step, metrics={"val_bpb": value} | metrics))

    def trial(self, n: int) -> Any:
        return self.store.trials.trial(self.ids[n])


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'orch.db'}")
    yield opened
    opened.close()


def test_a_report_is_in_sql_before_the_scheduler_sees_it(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, early_terminate=ASHA)
    bench.start(0)
    seen = []

    def look(*_: object) -> str:
        seen.append(bench.store.trials.curve(bench.ids[0], "val_bpb"))
        return CONTINUE

    bench.inner.on_trial_result = look  # type: ignore[method-assign]
    bench.report(0, 10, 3.0)
    assert seen == [[(10, 3.0)]]


def test_asha_stops_the_worse_half_and_says_why(sqlite: Store) -> None:
    bench = Bench(sqlite, 2, early_terminate=ASHA)
    for n in range(2):
        bench.start(n)
    assert bench.report(0, 10, 3.0) == CONTINUE
    assert bench.report(1, 10, 4.0) == STOP
    stopped = bench.trial(1)
    assert stopped.state is TrialState.STOPPED
    assert stopped.reason == (
        "stopped by ASHA at step 10: val_bpb 4 is not in the best 1/2 of the 2 trials that came to step 10"
    )
    assert bench.freed == [bench.ids[1]]


def test_a_trial_at_its_last_step_has_succeeded_however_it_ranks(sqlite: Store) -> None:
    bench = Bench(sqlite, 2, early_terminate=ASHA)
    for n in range(2):
        bench.start(n)
    bench.report(0, 80, 3.0)
    assert bench.report(1, 100, 4.0) == CONTINUE
    assert bench.say(1, Ended(outcome=Outcome.DONE)) == STOP
    assert bench.trial(1).state is TrialState.SUCCEEDED


def test_a_new_driver_decides_as_the_old_one_would_have(sqlite: Store) -> None:
    bench = Bench(sqlite, 3, early_terminate=ASHA)
    bench.start(0)
    bench.report(0, 10, 3.0)
    bench.say(0, Ended(outcome=Outcome.DONE))
    bench.start(1)
    bench.report(1, 10, 2.0)
    bench.take_over()
    assert bench.trial(1).state is TrialState.PENDING
    bench.start(1)
    assert bench.trial(1).attempt == 2
    assert bench.report(1, 10, 2.0) == CONTINUE, "its own result of before is not held against it"
    bench.start(2)
    assert bench.report(2, 10, 2.9) == STOP


def test_own_failures_are_retried_as_often_as_the_sweep_says(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, retries=1)
    failed = Ended(outcome=Outcome.FAILED, reason="OSError: disk full", checkpoint="/somewhere")
    bench.start(0)
    assert bench.say(0, failed) == CONTINUE
    assert (bench.trial(0).state, bench.trial(0).failures) == (TrialState.PENDING, 1)
    bench.start(0)
    assert bench.say(0, failed) == STOP
    ended = bench.trial(0)
    assert (ended.state, ended.failures, ended.reason) == (TrialState.FAILED, 2, "OSError: disk full")
    assert ended.checkpoint_path == "/somewhere"


def test_an_error_that_would_only_come_again_is_not_retried(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, retries=5)
    bench.start(0)
    assert bench.say(0, Ended(outcome=Outcome.HOPELESS, reason="diverged at step 10")) == STOP
    assert bench.trial(0).state is TrialState.FAILED


def test_lost_workers_are_no_failure_of_the_trial_but_do_not_go_on_for_ever(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, retries=0)
    lost = Ended(outcome=Outcome.LOST, reason="killed")
    for _ in range(LOSSES_WITHOUT_PROGRESS - 1):
        bench.start(0)
        assert bench.say(0, lost) == CONTINUE
    bench.start(0)
    bench.report(0, 10, 3.0)
    for _ in range(LOSSES_WITHOUT_PROGRESS - 1):
        assert bench.say(0, lost) == CONTINUE, "the report in between was progress"
        bench.start(0)
    assert bench.say(0, lost) == STOP
    assert (bench.trial(0).state, bench.trial(0).failures) == (TrialState.FAILED, 0)
    assert "5 times without a report" in bench.trial(0).reason


@pytest.mark.parametrize(
    ("metrics", "said"),
    [({"val_loss": 1.0, "lr": 0.1}, "it reports lr, val_loss"), ({"val_bpb": float("nan")}, "val_bpb is nan")],
)
def test_a_trial_without_the_sweeps_metric_fails_with_what_it_has(
    sqlite: Store, metrics: dict[str, float], said: str
) -> None:
    bench = Bench(sqlite, 1)
    bench.start(0)
    assert bench.say(0, Reported(step=10, metrics=metrics)) == STOP
    assert bench.trial(0).state is TrialState.FAILED
    assert said in bench.trial(0).reason


def test_the_size_of_a_trial_is_read_off_its_first_report(sqlite: Store) -> None:
    bench = Bench(sqlite, 1)
    bench.start(0)
    size = {"params": 300.0, "active_params": 200.0, "train_flops_per_token": 1200.0}
    bench.say(0, Reported(step=10, metrics={"val_bpb": 3.0} | size))
    trial = bench.trial(0)
    assert (trial.params_count, trial.active_params, trial.flops_per_token) == (300, 200, 1200.0)


def test_a_trial_whose_leader_process_died_goes_back_to_the_queue(sqlite: Store) -> None:
    bench = Bench(sqlite, 1)
    bench.start(0)
    bench.scheduler.on_trial_error(None, bench.tune(0))
    assert bench.trial(0).state is TrialState.PENDING
    assert bench.freed == [bench.ids[0]]


@pytest.mark.parametrize(("wish", "state"), [(Wish.PAUSE, TrialState.PAUSED), (Wish.CANCEL, TrialState.CANCELLED)])
def test_what_people_want_of_a_running_trial_is_done_at_its_next_report(
    sqlite: Store, wish: Wish, state: TrialState
) -> None:
    bench = Bench(sqlite, 2)
    bench.start(0)
    bench.start(1)
    assert bench.report(0, 10, 2.0) == CONTINUE
    bench.store.trials.wish(bench.ids[0], wish, user="ada", reason="by ada", now=NOW)
    assert bench.report(1, 10, 2.0) == CONTINUE
    assert bench.report(0, 20, 1.9) == STOP
    assert (bench.trial(0).state, bench.trial(0).step, bench.trial(0).reason) == (state, 20, "by ada")
    assert bench.freed == [bench.ids[0]]


def test_a_wish_that_comes_with_the_last_step_changes_nothing(sqlite: Store) -> None:
    bench = Bench(sqlite, 1)
    bench.start(0)
    bench.store.trials.wish(bench.ids[0], Wish.CANCEL, user="ada", reason="by ada", now=NOW)
    assert bench.report(0, 100, 2.0) == CONTINUE
    bench.say(0, Ended(outcome=Outcome.DONE))
    assert bench.trial(0).state is TrialState.SUCCEEDED


def test_a_trial_on_a_drained_node_goes_on_elsewhere(sqlite: Store) -> None:
    bench = Bench(sqlite, 2)
    bench.start(0, "node-1")
    bench.start(1, "node-2")
    bench.drained = frozenset({"node-1"})
    assert bench.report(1, 10, 2.0) == CONTINUE
    assert bench.report(0, 10, 2.0) == STOP
    assert (bench.trial(0).state, bench.again) == (TrialState.PENDING, [bench.ids[0]])
    assert "node node-1 is drained" in bench.trial(0).reason


def test_the_queue_follows_what_people_take_out_and_put_back(sqlite: Store) -> None:
    bench = Bench(sqlite, 3)
    rows = sqlite.trials
    people = People(bench.sweep.id, rows, frozenset, lambda: next(bench.seconds))
    queue = search.SqlTrials(
        rows.trials(bench.sweep.id),
        room=lambda: 9,
        halted=lambda: False,
        config_of=lambda _: {},
        waiting=people.waiting,
        take_up=bench.scheduler.take_up,
    )
    queue.add_configurations([SimpleNamespace(spec=_tune_spec())])
    first = queue.next_trial()
    assert first is not None
    rows.wish(bench.ids[1], Wish.CANCEL, user="ada", reason="", now=NOW)
    rows.wish(bench.ids[0], Wish.PAUSE, user="ada", reason="", now=NOW)
    # The first was handed out before; that it is not to start is found when it has a slot
    assert bench.say(0, Started(where="slot-0")) == STOP
    queue.on_trial_complete(first.trial_id)
    second = queue.next_trial()
    assert second is not None
    assert search.row_id(second.trial_id) == bench.ids[2]
    assert queue.is_finished()
    rows.wish(bench.ids[0], Wish.RUN, user="ada", reason="", now=NOW)
    assert not queue.is_finished()
    third = queue.next_trial()
    assert third is not None
    assert (search.row_id(third.trial_id), bench.say(0, Started(where="slot-0"))) == (bench.ids[0], CONTINUE)


def test_an_old_look_at_the_record_takes_nothing_from_the_queue(sqlite: Store) -> None:
    """What waits was looked up before a trial gave its slot up, and is heeded after it."""
    bench = Bench(sqlite, 1)
    looks = iter([frozenset(bench.ids), frozenset()])
    queue = search.SqlTrials(
        sqlite.trials.trials(bench.sweep.id),
        room=lambda: 1,
        halted=lambda: False,
        config_of=lambda _: {},
        waiting=lambda anew: next(looks, frozenset(bench.ids)),
        take_up=bench.scheduler.take_up,
    )
    queue.add_configurations([SimpleNamespace(spec=_tune_spec())])
    queue.put_back(bench.trial(0))
    assert not queue.is_finished()
    assert not queue.is_finished()
    assert queue.unfinished == 2


def test_no_more_trials_are_handed_out_than_there_is_room(sqlite: Store) -> None:
    bench = Bench(sqlite, 3)
    room = 1
    trials = bench.store.trials.trials(bench.sweep.id)
    halted = False
    queue = search.SqlTrials(
        trials, room=lambda: room, halted=lambda: halted, config_of=lambda trial: {"n": trial.number}
    )
    queue.add_configurations([SimpleNamespace(spec=_tune_spec())])
    first = queue.next_trial()
    assert first is not None
    assert (search.row_id(first.trial_id), first.config) == (bench.ids[0], {"n": 0})
    assert queue.next_trial() is None
    room = 2
    assert queue.next_trial() is not None
    assert queue.next_trial() is None
    queue.on_trial_complete(first.trial_id)
    halted = True
    assert queue.is_finished()
    assert queue.next_trial() is None
    halted = False
    assert not queue.is_finished()
    assert queue.next_trial() is not None
    assert queue.is_finished()
    assert queue.unfinished == 2


def test_a_trial_that_gave_its_slot_up_comes_again_behind_the_others(sqlite: Store) -> None:
    bench = Bench(sqlite, 2)
    queue = search.SqlTrials(
        bench.store.trials.trials(bench.sweep.id), room=lambda: 1, halted=lambda: False, config_of=lambda _: {}
    )
    queue.add_configurations([SimpleNamespace(spec=_tune_spec())])
    order = []
    for _ in range(4):
        handed = queue.next_trial()
        assert handed is not None
        order.append(search.row_id(handed.trial_id))
        queue.put_back(bench.store.trials.trial(order[-1]))
        queue.on_trial_complete(handed.trial_id)
    assert order == [bench.ids[0], bench.ids[1]] * 2
    assert not queue.is_finished()


def _tune_spec() -> dict[str, Any]:
    from ray.tune.execution.placement_groups import PlacementGroupFactory
    from ray.tune.registry import register_trainable

    from orchestrator.cluster.trainable import SweepTrial

    register_trainable("SweepTrial", SweepTrial)
    return {"run": "SweepTrial", "resources_per_trial": PlacementGroupFactory([{"memory": 1}]), "storage": None}


def test_a_grace_that_no_trial_outlives_stops_none(sqlite: Store) -> None:
    bench = Bench(sqlite, 2, early_terminate=ASHA | {"grace_steps": 100})
    assert isinstance(bench.inner, search.RunAll)


DEAD = {"when": "dead > 0.25 for 3 reports"}


def test_a_condition_that_holds_long_enough_stops_a_trial_whatever_its_loss(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, stop_if=[DEAD])
    bench.start(0)
    decisions = [bench.report(0, step, 100 / step, dead=dead) for step, dead in ((10, 0.3), (20, 0.1), (30, 0.3))]
    bench.take_over()
    bench.start(0)
    decisions += [bench.report(0, step, 100 / step, dead=0.3) for step in (40, 50)]
    assert decisions == [CONTINUE] * 4 + [STOP]
    stopped = bench.trial(0)
    assert (stopped.state, stopped.score) == (TrialState.STOPPED, 2.0)
    assert stopped.reason == "stop_if at step 50: dead > 0.25 for 3 reports (dead 0.3)"


def test_a_rewind_leaves_the_best_healthy_report_and_its_checkpoint(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, stop_if=[DEAD | {"rewind": "best"}])
    directory = bench.directory / str(bench.ids[0])
    directory.mkdir()
    bench.start(0)
    for step, value, dead in ((10, 4.0, 0.0), (20, 2.0, 0.0), (30, 3.0, 0.0), (40, 1.0, 0.5), (50, 1.0, 0.5)):
        (directory / f"step-{step:09d}-{step:016x}.ckpt").touch()
        bench.report(0, step, value, dead=dead)
    (directory / f"step-{60:09d}-{60:016x}.ckpt").touch()
    assert bench.report(0, 60, 0.5, dead=0.5) == STOP
    assert sorted(path.name[5:14] for path in directory.iterdir()) == ["000000010", "000000020"]
    ended = bench.trial(0)
    assert (ended.state, ended.score, ended.metrics["val_bpb"]) == (TrialState.STOPPED, 2.0, 0.5)
    assert ended.reason.endswith("; rewound to step 20")


def test_a_trial_that_was_never_healthy_has_no_score(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, stop_if=[{"when": "nan(aux)", "rewind": "best"}])
    bench.start(0)
    assert bench.report(0, 10, 1.0, aux=float("nan")) == STOP
    assert bench.trial(0).score is None
    assert bench.trial(0).metrics["nonfinite/aux"] == 1.0
    assert "nothing before it was healthy" in bench.trial(0).reason


def test_checkpoints_are_kept_for_as_long_as_a_condition_takes() -> None:
    config = {"training": {"steps": 9, "keep_checkpoints": 2, "checkpoint_every": 7}}
    changed = keeping_healthy({"stop_if": [DEAD | {"rewind": "best"}]}, config)["training"]
    assert (changed["keep_checkpoints"], changed["checkpoint_every"]) == (4, None)
    assert keeping_healthy({"stop_if": [DEAD]}, config) == config


def test_early_stopping_sees_the_aggregate(sqlite: Store) -> None:
    bench = Bench(sqlite, 2, early_terminate=ASHA, metric={"aggregate": "best"})
    for n in range(2):
        bench.start(n)
    bench.report(0, 5, 1.0)
    assert bench.report(0, 10, 9.0) == CONTINUE
    bench.take_over()
    bench.start(1)
    assert bench.report(1, 10, 2.0) == STOP, "at its best the other was at 1"


def test_a_budget_that_is_used_up_ends_what_runs_and_what_waits(sqlite: Store) -> None:
    bench = Bench(sqlite, 3, budget={"cpu_hours": 1}, resources={"workers": 2, "cpu": 2})
    bench.start(0)
    bench.clock.advance(minutes=14)
    assert bench.report(0, 10, 3.0) == CONTINUE
    bench.say(0, Ended(outcome=Outcome.DONE))
    bench.take_over()
    bench.start(1)
    assert not bench.limits.exhausted()
    bench.clock.advance(minutes=1)
    assert bench.report(1, 10, 3.0) == STOP
    bench.limits.close()
    told = "the budget of 1 cpu_hours is used up"
    assert [bench.trial(n).reason for n in range(3)] == ["", told, f"not started: {told}"]
    assert [bench.trial(n).state for n in range(3)] == [TrialState.SUCCEEDED, TrialState.STOPPED, TrialState.STOPPED]


def test_patience_ends_what_waits_and_lets_the_rest_finish(sqlite: Store) -> None:
    bench = Bench(sqlite, 4, budget={"patience": 2})
    for n in range(3):
        bench.start(n)
        bench.report(n, 10, 3.0 + n)
    for n in range(2):
        bench.say(n, Ended(outcome=Outcome.DONE))
        bench.clock.advance(seconds=1)
    assert not bench.limits.exhausted()
    bench.say(2, Ended(outcome=Outcome.DONE))
    assert bench.limits.exhausted().startswith("the last 2 trials brought nothing better")
    bench.limits.close()
    assert bench.trial(3).state is TrialState.STOPPED


def test_nothing_more_is_handed_out_once_the_budget_is_used_up(sqlite: Store) -> None:
    bench = Bench(sqlite, 2)
    trials = bench.store.trials.trials(bench.sweep.id)
    spent = ""
    queue = search.SqlTrials(
        trials, room=lambda: 2, halted=lambda: False, config_of=lambda trial: {}, exhausted=lambda: spent
    )
    queue.add_configurations([SimpleNamespace(spec=_tune_spec())])
    assert queue.next_trial() is not None
    spent = "used up"
    assert (queue.is_finished(), queue.next_trial(), queue.unfinished) == (True, None, 1)


OUT_OF_MEMORY = {"pattern": "CUDA out of memory", "action": "no_retry"}
ECC = {"pattern": "uncorrectable ECC", "action": "exclude_node"}


def test_a_line_in_the_log_can_say_that_another_try_is_no_use(sqlite: Store) -> None:
    bench = Bench(sqlite, 2, retries=5, log_policies=[OUT_OF_MEMORY])
    failed = Ended(outcome=Outcome.FAILED, reason="RuntimeError: something")
    directory = bench.directory / str(bench.ids[0])
    directory.mkdir()
    log = directory / "log.txt"
    log.write_text("of an earlier attempt: CUDA out of memory\n")
    bench.start(0)
    assert bench.say(0, failed) == CONTINUE
    bench.start(0)
    log.write_text(log.read_text() + "torch: CUDA out of memory. Tried to allocate 2 GiB\n")
    assert bench.say(0, failed) == STOP
    ended = bench.trial(0)
    assert (ended.state, ended.failures) == (TrialState.FAILED, 2)
    assert ended.reason == "RuntimeError: something; not tried again: its log matches 'CUDA out of memory'"
    bench.start(1)
    assert bench.say(1, Ended(outcome=Outcome.FAILED, reason="OutOfMemoryError: CUDA out of memory")) == STOP


def test_a_bad_node_is_left_at_no_cost_to_the_trial_as_long_as_there_is_another(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, retries=0, log_policies=[ECC])
    failed = Ended(outcome=Outcome.FAILED, reason="RuntimeError: uncorrectable ECC error")
    directory = bench.directory / str(bench.ids[0])
    directory.mkdir()
    bench.start(0, "node-1", "node-2")
    (directory / "log.txt").write_text("fine here\n")
    (directory / "log.rank1.txt").write_text("GPU 0: uncorrectable ECC error\n")
    assert bench.say(0, failed) == CONTINUE
    assert (bench.trial(0).state, bench.trial(0).failures, bench.left) == (TrialState.PENDING, 0, {"node-2"})
    assert nodes_left(bench.sweep, sqlite.sweeps) == {"node-2"}
    bench.start(0, "node-1", "node-1")
    assert bench.say(0, failed) == STOP, "there is no other node, so it is a failure like others"
    assert (bench.trial(0).state, bench.trial(0).failures) == (TrialState.FAILED, 1)


def test_a_log_that_meets_no_policy_changes_nothing(sqlite: Store) -> None:
    bench = Bench(sqlite, 1, retries=1, log_policies=[OUT_OF_MEMORY, ECC])
    bench.start(0, "node-1")
    assert bench.say(0, Ended(outcome=Outcome.FAILED, reason="OSError: disk full")) == CONTINUE
    assert (bench.trial(0).failures, bench.left) == (1, set())
