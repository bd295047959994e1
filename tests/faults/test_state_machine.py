"""Submit, pause, resume, prune, cancel, retry, drivers that die and coordinators that crash between any two calls, in
any order: against a model, with the real record and coordinator. Only the cluster is played, for speed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from orchestrator import control
from orchestrator.coordinator import STARTED, Coordinator
from orchestrator.errors import BadInput, Unreachable
from orchestrator.lifecycle import SWEEP_ENDS, TRIAL_ENDS, SweepState, TrialState, Wish
from orchestrator.policy import Rules
from orchestrator.reconciliation import reconcile
from orchestrator.records import DriverStatus, Report, Sweep
from orchestrator.store import Store, open_store
from orchestrator.submit import submit
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

TEXT = "name: s\nparameters: {{training.lr: [{lrs}]}}\npriority: {priority}\nseeds: [{seed}]\nretries: 1\n"
S, D, T = SweepState, DriverStatus, TrialState
CPUS = 3
STEPS = 3
METRIC = "val_bpb"
HAPPENINGS = ("report", "report", "report", "tick", "prune", "fail", "lose worker", "ends", "dies")


class Crash(BaseException):
    """kill -9, as seen from inside."""


class Mortal:
    """Something whose caller dies at a call of it: before it, or after it but before the answer."""

    def __init__(self, inner: Any, meet: Callable[[], None]) -> None:
        self._inner, self._meet = inner, meet

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._meet()
            answer = method(*arguments, **named)
            self._meet()
            return answer

        return call


class Service(RuleBasedStateMachine):
    """The model: what was submitted, reported and ended, by trial; and what people asked for."""

    sweeps = Bundle("sweeps")

    @initialize(target=sweeps, trials=st.integers(1, 3))
    def start(self, trials: int) -> int:
        self.home = Path(tempfile.mkdtemp(prefix="orch-model-"))
        shutil.copyfile(_template(), self.home / "orch.db")
        self.store: Store = open_store(f"sqlite:///{self.home}/orch.db")
        self.launcher, self.clock = FakeLauncher(cpus=CPUS), FakeClock()
        self.crash_in = 0
        self.taken_over: set[str] = set()
        self.reported: dict[int, dict[int, float]] = defaultdict(dict)
        self.ended: dict[int, tuple[TrialState, int]] = {}
        self.ends: Counter[int] = Counter()
        self.submitted = 0
        self.new_coordinator()
        return int(self.submit_one(trials, 50))

    # ---- people

    @rule(target=sweeps, trials=st.integers(1, 3), priority=st.sampled_from([10, 50, 90]))
    def submit(self, trials: int, priority: int) -> Any:
        if self.submitted == 4 or self.launcher.away:
            return multiple()
        return self.submit_one(trials, priority)

    def submit_one(self, trials: int, priority: int) -> int:
        self.submitted += 1
        lrs = ", ".join(f"{n + 1}e-3" for n in range(trials))
        text = TEXT.format(lrs=lrs, priority=priority, seed=self.submitted)
        return submit(
            text,
            "f.yaml",
            user="u",
            store=self.store.sweeps,
            trials=self.store.trials,
            launcher=self.launcher,
            clock=self.clock,
        ).sweep.id

    @rule(sweep=sweeps, ask=st.sampled_from([control.pause, control.cancel]))
    def ask(self, sweep: int, ask: Callable[..., Sweep]) -> None:
        with suppress(BadInput):
            ask(str(sweep), user="u", store=self.store.sweeps, clock=self.clock)

    @rule(sweep=sweeps)
    def resume(self, sweep: int) -> None:
        with suppress(BadInput):
            control.resume(str(sweep), user="u", store=self.store.sweeps, trials=self.store.trials, clock=self.clock)

    @rule(sweep=sweeps)
    def retry(self, sweep: int) -> None:
        with suppress(BadInput):
            control.retry(str(sweep), user="u", store=self.store.sweeps, clock=self.clock)
            for trial in self.store.trials.trials(sweep):
                if trial.state is T.PENDING:
                    self.ended.pop(trial.id, None)

    # ---- the coordinator

    @rule(calls=st.integers(1, 25))
    def tick_and_crash(self, calls: int) -> None:
        """Dead at some call; another coordinator takes over, perhaps only to die too."""
        self.crash_in = calls
        try:
            self.tick()
        except Crash:
            self.new_coordinator()
        finally:
            self.crash_in = 0

    @rule(times=st.integers(1, 3))
    def ticks(self, times: int) -> None:
        for _ in range(times):
            self.tick()

    @rule()
    def away(self) -> None:
        """The cluster answers no more, or again."""
        self.launcher.away = not self.launcher.away

    @rule(seconds=st.sampled_from([-3600, -1, 0.25, 30, 300, 100_000]))
    def time(self, seconds: float) -> None:
        """It passes, or the clock is put back."""
        self.clock.advance(seconds=seconds)

    # ---- drivers, as they behave

    @rule(sweep=sweeps, happenings=st.lists(st.sampled_from(HAPPENINGS), min_size=1, max_size=6))
    def drive(self, sweep: int, happenings: list[str]) -> None:
        """What a driver sees in the time of a few ticks, the coordinator awake or not."""
        for what in happenings:
            if what in ("ends", "dies"):
                self.driver_goes(sweep, what)
            elif what == "tick":
                self.tick()
            else:
                self.train(sweep, what)

    def train(self, sweep: int, what: str) -> None:
        row = self.driven(sweep)
        if row is None:
            return
        running = [trial for trial in self.store.trials.trials(sweep) if trial.state is T.RUNNING]
        waiting = [trial for trial in self.store.trials.trials(sweep) if trial.state is T.PENDING]
        if waiting and len(running) < row.slots:
            running.append(self.store.trials.start_trial(waiting[0].id, now=self.clock.now()))
        if not running:
            return
        trial = running[0]
        if what == "report":
            step = trial.step + 1
            value = trial.id + step / 8
            report = Report(
                trial_id=trial.id, attempt=trial.attempt, step=step, metrics={METRIC: value}, at=self.clock.now()
            )
            self.store.trials.record([report])
            self.reported[trial.id][step] = value
            if step >= STEPS:
                self.end(trial.id, T.SUCCEEDED)
        elif what == "lose worker":
            self.store.trials.end_trial(trial.id, T.PENDING, reason="lost", now=self.clock.now())
        elif what == "fail" and trial.failures < 1:
            self.store.trials.end_trial(trial.id, T.PENDING, reason="", now=self.clock.now(), own_failure=True)
        else:
            self.end(trial.id, T.STOPPED if what == "prune" else T.FAILED)

    def driver_goes(self, sweep: int, how: str) -> None:
        row = self.driven(sweep)
        over = all(trial.state in TRIAL_ENDS for trial in self.store.trials.trials(sweep))
        if row and (over or how == "dies"):
            self.launcher.drivers[self.launcher.job_id(sweep, row.attempt)] = D.DONE if how == "ends" else D.DIED

    # ---- what holds at any time

    @invariant()
    def no_trial_ends_twice_or_changes_after_its_end(self) -> None:
        for sweep in self.all_sweeps():
            for trial in self.store.trials.trials(sweep.id):
                if trial.id in self.ended:
                    state, step = self.ended[trial.id]
                    assert (trial.state, trial.step) == (state, step)
                elif trial.state in TRIAL_ENDS:
                    assert trial.state in (T.CANCELLED, T.FAILED), "ended by nobody"
                    assert sweep.state in SWEEP_ENDS
                    self.ended[trial.id] = (trial.state, trial.step)
                    self.ends[trial.id] += 1
                if trial.state is T.RUNNING:
                    assert sweep.state in STARTED

    @invariant()
    def every_report_is_there_once(self) -> None:
        for trial_id, curve in self.reported.items():
            assert dict(self.store.trials.curve(trial_id, METRIC)) == curve

    @invariant()
    def the_log_is_a_chain_of_moves(self) -> None:
        for sweep in self.all_sweeps():
            at: dict[int | None, str] = {}
            ends: Counter[int] = Counter()
            for event in self.store.sweeps.events(sweep_id=sweep.id, limit=10_000):
                before, arrow, after = event.what.partition(" -> ")
                if arrow:
                    assert at.get(event.trial_id, before) == before
                    at[event.trial_id] = after
                    if event.trial_id is not None and after in TRIAL_ENDS:
                        ends[event.trial_id] += 1
            assert at.get(None, sweep.state) == sweep.state
            for trial in self.store.trials.trials(sweep.id):
                assert at.get(trial.id, trial.state) == trial.state
                assert ends[trial.id] == self.ends[trial.id]

    @invariant()
    def one_driver_a_sweep_and_no_more_slots_than_there_are(self) -> None:
        assert len(set(self.launcher.started)) == len(self.launcher.started)
        living = [
            job.split("-")[1] for job, status in self.launcher.drivers.items() if status in (D.RUNNING, D.PENDING)
        ]
        assert len(set(living)) == len(living)
        rows = self.all_sweeps()
        assert sum(sweep.slots for sweep in rows if sweep.state in STARTED) <= CPUS
        assert all(sweep.slots == 0 for sweep in rows if sweep.state not in STARTED)

    def teardown(self) -> None:
        """Let it run out: whatever has happened, all of it comes to its end."""
        if not hasattr(self, "store"):
            return
        self.launcher.away = False
        for _ in range(200):
            for sweep in self.all_sweeps():
                if sweep.wish is Wish.PAUSE:
                    self.resume(sweep.id)
                self.train(sweep.id, "report")
                self.driver_goes(sweep.id, "ends")
            self.clock.advance(seconds=60)
            self.tick()
            if all(sweep.state in SWEEP_ENDS for sweep in self.all_sweeps()):
                break
        rows = self.all_sweeps()
        assert all(sweep.state in SWEEP_ENDS for sweep in rows), [(s.id, s.state, s.reason) for s in rows]
        assert not self.launcher.living()
        for sweep in rows:
            assert {trial.state for trial in self.store.trials.trials(sweep.id)} <= TRIAL_ENDS
        for check in (
            self.no_trial_ends_twice_or_changes_after_its_end,
            self.every_report_is_there_once,
            self.the_log_is_a_chain_of_moves,
        ):
            check()
        self.store.close()
        shutil.rmtree(self.home)

    # ---- within

    def new_coordinator(self) -> None:
        sweeps, ledger, launcher = (
            Mortal(each, self.meet) for each in (self.store.sweeps, self.store.ledger, self.launcher)
        )
        self.coordinator = Coordinator(sweeps, ledger, launcher, self.clock, Rules())
        with suppress(Unreachable):
            reconcile(self.store.sweeps, self.store.outbox, self.launcher)

    def meet(self) -> None:
        if self.crash_in:
            self.crash_in -= 1
            if not self.crash_in:
                raise Crash

    def tick(self) -> None:
        with suppress(Unreachable):
            self.coordinator.tick()

    def driven(self, sweep_id: int) -> Sweep | None:
        """The sweep, if its driver lives and is its own; what a driver does first is done."""
        row = self.store.sweeps.sweep(sweep_id)
        job = self.launcher.job_id(row.id, row.attempt)
        if row.state in SWEEP_ENDS or self.launcher.drivers.get(job) is not D.RUNNING:
            return None
        if job not in self.taken_over:
            self.taken_over.add(job)
            self.store.trials.requeue_trials(sweep_id, reason="a new driver took over", now=self.clock.now())
        return row

    def end(self, trial_id: int, state: TrialState) -> None:
        trial = self.store.trials.end_trial(trial_id, state, reason="", now=self.clock.now())
        self.ended[trial_id] = (trial.state, trial.step)
        self.ends[trial_id] += 1

    def all_sweeps(self) -> list[Sweep]:
        return self.store.sweeps.sweeps(limit=100)


_TEMPLATES: list[Path] = []


def _template() -> Path:
    """An empty record: copying takes a hundredth of making."""
    if not _TEMPLATES:
        path = Path(tempfile.mkdtemp(prefix="orch-model-")) / "orch.db"
        open_store(f"sqlite:///{path}").close()
        _TEMPLATES.append(path)
    return _TEMPLATES[0]


TestService = Service.TestCase
TestService.settings = settings(
    max_examples=int(os.environ.get("ORCH_MODEL_EXAMPLES", "15")),
    stateful_step_count=50,
    deadline=None,
    derandomize="ORCH_MODEL_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
