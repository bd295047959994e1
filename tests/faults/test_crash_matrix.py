"""kill -9 of the coordinator, with sweeps in every state at once, and some time until the next one is there.

Real processes: a coordinator (`orch serve`), Ray's jobs, training. While the coordinator stands still before its death,
the states that last for a moment are made to last, as it would have left them.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator import control
from orchestrator.clock import SystemClock
from orchestrator.cluster.launcher import RayLauncher
from orchestrator.lifecycle import SWEEP_ENDS, TRIAL_ENDS, Actor, SweepState, TrialState
from orchestrator.records import DriverStatus, Sweep
from orchestrator.submit import submit
from tests.faults.test_trials import undisturbed
from tests.support.ray_cluster import PATIENCE_S, Lab, wait_for
from workloads import faults

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
DOWN_S = (0, 5, 20)
TEXT = """\
name: {name}
workload:
  task: bytes_lm
  model: {{d_model: 16, n_layers: 1, mixer: gru, feedforward: {{name: dense, hidden: 16}}}}
  training: {{steps: {steps}, batch_size: 4, sequence_length: 32, eval_every: 10, figures: false}}
parameters: {{training.lr: [{lr}]}}
resources: {{cpu: {cpu}, gpu: 0}}
priority: {priority}
"""
CLOCK = SystemClock()
SHORT, LONGER, ENDLESS = 100, 600, 1_000_000


@contextmanager
def coordinator(lab: Lab, meets: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """meets: where faults are laid for it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ORCH_", "RAY_", "MLFLOW_"))}
    command = [sys.executable, "-m", "orchestrator.cli.main", "serve", "--ray-dashboard", lab.head.dashboard_url]
    with (lab.settings.home / "coordinator.log").open("ab") as log:
        env = kept | {"ORCH_HOME": str(lab.settings.home)} | ({faults.VARIABLE: str(meets)} if meets else {})
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def stand_still(process: subprocess.Popen[bytes], database: Path) -> None:
    """Stop it at a moment at which it does not hold the database's lock, for others are to write."""
    while True:
        process.send_signal(signal.SIGSTOP)
        other = sqlite3.connect(database, isolation_level=None, timeout=1)
        try:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
        finally:
            other.close()


class Scene:
    """Sweeps by name, of one trial each."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.launcher = lab, RayLauncher(lab.head.dashboard_url, lab.settings)
        self.count = 0

    def add(self, name: str, *, steps: int = SHORT, cpu: float = 0.25, priority: int = 50) -> None:
        self.count += 1
        text = TEXT.format(name=name, steps=steps, cpu=cpu, priority=priority, lr=f"{self.count}e-3")
        store = self.lab.store
        submit(text, "f.yaml", user="u", store=store.sweeps, trials=store.trials, launcher=self.launcher, clock=CLOCK)

    def sweep(self, name: str) -> Sweep:
        return self.lab.store.sweeps.find_sweep(name)

    def ask(self, what: str, name: str) -> None:
        trials = {"trials": self.lab.store.trials} if what == "resume" else {}
        getattr(control, what)(name, user="u", store=self.lab.store.sweeps, clock=CLOCK, **trials)

    def trains(self, name: str) -> None:
        wait_for(lambda: self.lab.trials(self.sweep(name))[0].step > 0, f"a report of {name}")

    def becomes(self, name: str, state: SweepState) -> None:
        wait_for(lambda: self.sweep(name).state is state, f"{name} {state}")

    def ended_once(self, name: str, end: TrialState) -> None:
        sweep = self.sweep(name)
        [trial] = self.lab.trials(sweep)
        events = self.lab.store.sweeps.events(sweep_id=sweep.id)
        ends = Counter(e.what.rpartition(" -> ")[2] for e in events if e.trial_id and e.what.split()[-1] in TRIAL_ENDS)
        assert (trial.state, ends) == (end, {str(end): 1})
        if end is TrialState.SUCCEEDED:
            assert self.lab.store.trials.curve(trial.id, "val_bpb") == undisturbed(trial.config)


@pytest.fixture
def scene(lab: Lab) -> Scene:
    return Scene(lab)


def test_every_state_survives_the_coordinators_death(scene: Scene) -> None:
    lab = scene.lab
    scene.add("running", steps=ENDLESS)
    scene.add("paused")
    scene.ask("pause", "paused")
    for down_s in DOWN_S:
        names = {state: f"{state}-{down_s}" for state in ("pausing", "stopping", "collecting", "starting", "queued")}
        scene.add(names["pausing"], steps=ENDLESS)
        scene.add(names["stopping"], steps=ENDLESS)
        with coordinator(lab) as dying:
            for name in ("running", names["pausing"], names["stopping"]):
                scene.trains(name)
            scene.becomes("paused", SweepState.PAUSED)
            scene.add(names["collecting"], steps=LONGER)
            scene.trains(names["collecting"])
            stand_still(dying, lab.settings.home / "orch.db")
            # As an API beside it would write it, and as it would have written it itself
            scene.ask("pause", names["pausing"])
            scene.ask("cancel", names["stopping"])
            collected = scene.sweep(names["collecting"])
            assert collected.state is SweepState.RUNNING
            wait_for(lambda of=collected: scene.launcher.status(of) is DriverStatus.DONE, "the end of a driver")
            scene.add(names["queued"], cpu=2, priority=1)
            scene.add(names["starting"])
            starting = scene.sweep(names["starting"])
            lab.store.sweeps.move_sweep(
                starting, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=CLOCK.now(), slots=1
            )
            dying.send_signal(signal.SIGKILL)
            dying.wait()
        before = lab.trials(scene.sweep("running"))[0].step
        time.sleep(down_s)
        with coordinator(lab):
            scene.becomes(names["pausing"], SweepState.PAUSED)
            scene.becomes(names["stopping"], SweepState.CANCELLED)
            scene.becomes(names["collecting"], SweepState.SUCCEEDED)
            scene.becomes(names["starting"], SweepState.SUCCEEDED)
            assert scene.sweep("paused").state is SweepState.PAUSED
            assert scene.sweep(names["queued"]).state is SweepState.QUEUED
            running = scene.sweep("running")
            assert (running.state, running.attempt, lab.trials(running)[0].attempt) == (SweepState.RUNNING, 1, 1)
            wait_for(lambda of=running, step=before: lab.trials(of)[0].step > step, "more reports")
            scene.ended_once(names["collecting"], TrialState.SUCCEEDED)
            scene.ended_once(names["starting"], TrialState.SUCCEEDED)
            scene.ended_once(names["stopping"], TrialState.CANCELLED)
            for name in (names["collecting"], names["starting"], names["stopping"]):
                assert scene.sweep(name).attempt == 1
            scene.ask("cancel", names["pausing"])
            scene.becomes(names["pausing"], SweepState.CANCELLED)
    told = (lab.settings.home / "coordinator.log").read_text()
    # By each coordinator but the first
    assert told.count("(running): adopted: its driver") == 2 * len(DOWN_S) - 1
    with coordinator(lab):
        scene.ask("cancel", "running")
        scene.ask("resume", "paused")
        for name in ("paused", *(f"queued-{down_s}" for down_s in DOWN_S)):
            wait_for(lambda name=name: scene.sweep(name).state in SWEEP_ENDS, f"the end of {name}")
            scene.ended_once(name, TrialState.SUCCEEDED)
        scene.becomes("running", SweepState.CANCELLED)
    wait_for(lambda: not scene.launcher.living(), "the end of all drivers")


def test_a_coordinator_that_dies_as_it_starts_a_driver_starts_one(scene: Scene, fault_directory: Path) -> None:
    scene.add("once")
    faults.arm(fault_directory, "dispatch", "kill")
    with coordinator(scene.lab, fault_directory) as dying:
        assert dying.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    assert scene.sweep("once").state is SweepState.STARTING
    with coordinator(scene.lab):
        scene.becomes("once", SweepState.SUCCEEDED)
    assert scene.sweep("once").attempt == 1
    scene.ended_once("once", TrialState.SUCCEEDED)
