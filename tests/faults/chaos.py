"""A sweep among faults drawn at random: `python -m tests.faults.chaos` prints what was done to it and what it cost.

The service is a real one (`orch up`: coordinator, Ray head, MLflow) in a home of its own. Faults come one after the
other, each once the one before has been overcome, that is, once a trial has reported again. In the end every trial
must have ended exactly once, with the metrics of undisturbed training, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

import workloads
from orchestrator.cluster.head import MARK
from orchestrator.lifecycle import SWEEP_ENDS, TRIAL_ENDS, TrialState
from orchestrator.processes import Process
from orchestrator.records import Trial
from orchestrator.store import Store, open_store
from workloads import faults

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600.0
LOCKED_S, SILENT_S = 10.0, 8.0
TRIAL_S = 4.0
EVAL_EVERY = 20
TIMING = ("tokens_per_s", "loader_tokens_per_s")
ACTS = "tests.faults.acts"


def sweep_file(trials: int, steps: int) -> dict[str, Any]:
    """Two seeds of each learning rate; early stopping is off, so that what ends when changes no result."""
    return {
        "name": "chaos",
        "workload": {
            "task": "bytes_lm",
            "model": {"d_model": 16, "n_layers": 1, "mixer": "gru", "feedforward": {"name": "dense", "hidden": 16}},
            "training": {
                "steps": steps, "batch_size": 4, "sequence_length": 32, "eval_every": EVAL_EVERY,
                "keep_checkpoints": 3, "figures": False,
            },
        },
        "parameters": {"training.lr": [round(1e-3 * (1 + n / 4), 6) for n in range(trials // 2)]},
        "seeds": 2,
        "retries": 100,
        "heartbeat_timeout": "30s",
    }  # fmt: skip


@dataclass
class Chaos:
    """A service under fire."""

    home: Path
    random: random.Random
    done: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> Path:
        return self.home / "faults"

    def orch(self, *words: str, code: int | None = 0) -> str:
        """`orch WORDS`; its output."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ORCH_", "RAY_", "MLFLOW_"))}
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {
            **kept, "ORCH_HOME": str(self.home), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths,
            "RAY_memory_usage_threshold": "0.99", faults.VARIABLE: str(self.faults),
        }  # fmt: skip
        command = [sys.executable, "-m", "orchestrator.cli.main", *words]
        ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
        assert code in (None, ended.returncode), f"orch {' '.join(words)}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def up(self) -> None:
        """Bring back what is gone; a fault may strike the coordinator at its start, too."""
        wait_for(self._is_up, "the service", every_s=1)

    def _is_up(self) -> bool:
        self.orch("up", code=None)
        return bool(self.orch("status", "--format", "json", code=None))

    # ---- faults

    def kill_worker(self) -> None:
        self._signal(self.workers, signal.SIGKILL)

    def terminate_worker(self) -> None:
        self._signal(self.workers, signal.SIGTERM)

    def interrupt_worker(self) -> None:
        self._signal(self.workers, signal.SIGINT)

    def kill_driver(self) -> None:
        self._signal(self.drivers, signal.SIGKILL)

    def terminate_driver(self) -> None:
        self._signal(self.drivers, signal.SIGTERM)

    def kill_coordinator(self) -> None:
        self._end_service("coordinator", signal.SIGKILL)

    def terminate_coordinator(self) -> None:
        self._end_service("coordinator", signal.SIGTERM)

    def interrupt_coordinator(self) -> None:
        self._end_service("coordinator", signal.SIGINT)

    def kill_mlflow(self) -> None:
        self._end_service("mlflow", signal.SIGKILL)

    def silence_ray(self) -> None:
        """The dashboard, and with it the Jobs API, answers nothing for a while."""
        port = int(self.running["ray_dashboard_url"].rpartition(":")[2])
        [dashboard] = [each for each in self.of_ray() if port in listening_on(each)]
        dashboard.suspend()
        time.sleep(SILENT_S)
        dashboard.resume()

    def lock_database(self) -> None:
        """Another process holds SQLite's write lock."""
        other = sqlite3.connect(self.home / "orch.db", isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_S)
        other.execute("ROLLBACK")
        other.close()

    def pause_and_resume(self) -> None:
        self.orch("pause", "chaos")
        wait_for(lambda: json.loads(self.orch("show", "chaos", "--format", "json"))["state"] == "paused", "the pause")
        self.orch("resume", "chaos")

    def at(self, point: str, act: str) -> None:
        """A fault at a point of the code, where the next process that comes by meets it."""
        [path] = faults.arm(self.faults, point, act, delay_s=2.0 if act == "delay" else 0.0)
        wait_for(lambda: not path.exists(), f"{act} at {point}")
        self.mend()

    def lose_driver_and(self, act: str) -> None:
        """The next driver meets a fault as it is to be started."""
        [path] = faults.arm(self.faults, "dispatch", act)
        self.kill_driver()
        wait_for(lambda: not path.exists(), f"{act} at dispatch")
        self.mend()

    def mend(self) -> None:
        """Whoever met a fault may have been the coordinator."""
        time.sleep(0.5)
        if self._part("coordinator") is None:
            self.up()

    # ---- who is there

    def workers(self) -> list[psutil.Process]:
        return self._named("ray::RayTrainWorker")

    def drivers(self) -> list[psutil.Process]:
        return self._named(" drive ")

    def _named(self, word: str) -> list[psutil.Process]:
        return wait_for(lambda: [each for each in self.of_ray() if word in command_of(each)], f"a process of {word!r}")

    def of_ray(self) -> list[psutil.Process]:
        """The processes of the head, with those that lost their parent."""
        mark = self.running["ray"]["mark"]
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == mark and not is_gone(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    @property
    def running(self) -> Mapping[str, Any]:
        return json.loads((self.home / "run.json").read_text())

    def _signal(self, of: Callable[[], list[psutil.Process]], number: signal.Signals) -> None:
        while True:
            try:
                self.random.choice(of()).send_signal(number)
                return
            except psutil.NoSuchProcess:
                continue

    def _part(self, name: str) -> psutil.Process | None:
        """A process that `orch up` started; None where it is gone."""
        recorded = Process(self.running[name]["pid"], self.running[name]["started"])
        return psutil.Process(recorded.pid) if recorded.is_alive else None

    def _end_service(self, name: str, number: signal.Signals) -> None:
        if (process := self._part(name)) is not None:
            if name == "mlflow":
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            wait_for(lambda: is_gone(process), f"the end of {name}")
        time.sleep(self.random.choice([0, 0, 5]))
        self.up()


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def listening_on(process: psutil.Process) -> set[int]:
    try:
        found = process.net_connections(kind="tcp")
    except psutil.Error:
        return set()
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


def kinds(chaos: Chaos) -> dict[str, Callable[[], None]]:
    """Every fault that is drawn from, by name."""
    found = {
        "worker kill -9": chaos.kill_worker,
        "worker SIGTERM": chaos.terminate_worker,
        "worker SIGINT": chaos.interrupt_worker,
        "driver kill -9": chaos.kill_driver,
        "driver SIGTERM": chaos.terminate_driver,
        "coordinator kill -9": chaos.kill_coordinator,
        "coordinator SIGTERM": chaos.terminate_coordinator,
        "coordinator SIGINT": chaos.interrupt_coordinator,
        "MLflow kill -9": chaos.kill_mlflow,
        f"Ray's API silent for {SILENT_S:g} s": chaos.silence_ray,
        f"SQLite locked for {LOCKED_S:g} s": chaos.lock_database,
        "pause and resume": chaos.pause_and_resume,
        "driver kill -9, error at dispatch": lambda: chaos.lose_driver_and("error"),
        "driver kill -9, coordinator kill at dispatch": lambda: chaos.lose_driver_and("kill"),
    }
    for point in ("heartbeat", "report", "checkpoint", "commit", "committed"):
        for act in ("kill", "delay", "error"):
            found[f"{act} at {point}"] = lambda point=point, act=act: chaos.at(point, act)
    for name, point, act in (
        ("trial hangs", "heartbeat", "hang"),
        ("trial forks, and its worker dies", "heartbeat", "fork_and_die"),
        ("checkpoint torn, and its worker dies", "report", "tear_checkpoint_and_die"),
        ("disk full at a checkpoint", "checkpoint", "fill_the_disk"),
    ):
        found[name] = lambda point=point, act=act: chaos.at(point, f"{ACTS}:{act}")
    return found


def run(
    home: Path,
    say: Callable[[str], None],
    *,
    trials: int,
    steps: int,
    count: int,
    seed: int,
    only: Sequence[str] = (),
) -> int:
    """Returns how many trials were lost, doubled or differ. only: kinds of faults to draw from; all when left out."""
    began = time.monotonic()
    chaos = Chaos(home, random.Random(seed))
    chaos.faults.mkdir(parents=True)
    file = home / "chaos.yaml"
    file.write_text(yaml.safe_dump(sweep_file(trials, steps), sort_keys=False))
    try:
        chaos.orch("up")
        sweep_id = json.loads(chaos.orch("submit", str(file), "--format", "json"))["sweep_id"]
        store = open_store(f"sqlite:///{home}/orch.db")
        try:
            _strike(chaos, store, sweep_id, count, only, say)
            wait_for(lambda: store.sweeps.sweep(sweep_id).state in SWEEP_ENDS, "the sweep's end")
            took_s = time.monotonic() - began
            chaos.orch("down", code=None)
            return _report(chaos, store, sweep_id, took_s, say)
        finally:
            store.close()
    except BaseException:
        for log in sorted((home / "logs").glob("*.log")):
            say(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
        raise
    finally:
        chaos.orch("down", code=None)


def _strike(
    chaos: Chaos, store: Store, sweep_id: int, count: int, only: Sequence[str], say: Callable[[str], None]
) -> None:
    known = {name: fault for name, fault in kinds(chaos).items() if not only or name in only}
    # Every kind before any comes twice
    order: list[str] = []
    while len(order) < count:
        order += chaos.random.sample(sorted(known), len(known))
    for number, name in enumerate(order[:count], 1):
        before = _reports(store, sweep_id)
        wait_for(lambda before=before: _reports(store, sweep_id) > before or _over(store, sweep_id), "a report")
        if _over(store, sweep_id):
            raise SystemExit(f"the sweep was over after {number - 1} faults: give it more trials")
        say(f"{number:3}/{count}  {name}")
        known[name]()
        chaos.done[name] += 1


def _reports(store: Store, sweep_id: int) -> int:
    return sum(trial.step + 1000 * trial.attempt for trial in store.trials.trials(sweep_id))


def _over(store: Store, sweep_id: int) -> bool:
    return all(trial.state in TRIAL_ENDS for trial in store.trials.trials(sweep_id))


def _report(chaos: Chaos, store: Store, sweep_id: int, took_s: float, say: Callable[[str], None]) -> int:
    trials = store.trials.trials(sweep_id)
    ends: Counter[int] = Counter()
    after = 0
    while page := store.sweeps.events(sweep_id=sweep_id, after=after):
        after = page[-1].id
        ends.update(
            event.trial_id for event in page if event.trial_id and event.what.rpartition(" -> ")[2] in TRIAL_ENDS
        )
    lost = [trial.id for trial in trials if trial.state is not TrialState.SUCCEEDED or not ends[trial.id]]
    doubled = [trial.id for trial in trials if ends[trial.id] > 1]
    ended = [trial for trial in trials if trial.id not in lost]
    curves = [store.trials.curve(trial.id, "val_bpb") for trial in ended]
    with ProcessPoolExecutor(max_workers=2, mp_context=multiprocessing.get_context("spawn")) as pool:
        same = list(pool.map(is_undisturbed, ended, curves))
    differing = [trial.id for trial, alike in zip(ended, same, strict=True) if not alike]
    for name, times in sorted(chaos.done.items()):
        say(f"  {times:3} x {name}")
    attempts = sum(trial.attempt for trial in trials)
    say(
        f"faults injected {sum(chaos.done.values())}, trials {len(trials)} in {attempts} attempts by "
        f"{store.sweeps.sweep(sweep_id).attempt} drivers, {took_s:.0f} s\n"
        f"lost {len(lost)}, doubled {len(doubled)}, differing {len(differing)}"
    )
    for trial in trials:
        if trial.id in (*lost, *doubled, *differing):
            say(f"trial {trial.id}: {trial.state}, {ends[trial.id]} ends, {trial.reason}")
    return len({*lost, *doubled, *differing})


def is_undisturbed(trial: Trial, curve: Sequence[tuple[int, float]]) -> bool:
    """Whether its whole curve, and every last metric, are those of training that nothing disturbed."""
    torch.set_num_threads(1)
    rows = list(workloads.train({**trial.config, "seed": trial.seed}))
    last = {name: value for name, value in rows[-1].items() if name not in ("step", *TIMING)}
    told = {name: value for name, value in trial.metrics.items() if name in last}
    return list(curve) == [(row["step"], row["val_bpb"]) for row in rows] and told == last


def steps_in(seconds: float) -> int:
    """Steps that one trial makes in so much time on this machine, as it is now."""
    torch.set_num_threads(1)
    training = sweep_file(2, 10_000)["workload"]
    rows = workloads.train({**training, "seed": 0})
    next(rows)
    began = time.perf_counter()
    steps = next(rows)["step"] - EVAL_EVERY
    rows.close()  # type: ignore[attr-defined]
    return EVAL_EVERY * max(10, int(steps * seconds / (time.perf_counter() - began) / EVAL_EVERY))


def wait_for(condition: Callable[[], Any], what: str, every_s: float = 0.1) -> Any:
    """What `condition` returns once it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(every_s)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--steps", type=int, help="of a trial; for some seconds of training when left out")
    parser.add_argument("--faults", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the order in which faults come")
    parser.add_argument("--home", type=Path, help="kept afterwards; a temporary directory when left out")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orch-chaos-") as temporary:
        home = chosen.home or Path(temporary) / "home"
        bad = run(
            home,
            lambda line: print(line, flush=True),
            trials=chosen.trials,
            steps=chosen.steps or steps_in(TRIAL_S),
            count=chosen.faults,
            seed=chosen.seed,
        )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
