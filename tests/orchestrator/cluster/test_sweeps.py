"""Sweeps on a real cluster: real Ray jobs, Tune, Train worker groups and training of tiny models."""

import json
import signal
import urllib.request
from typing import Any

from orchestrator.cluster.groups import STARTS_BEFORE_GIVING_UP
from orchestrator.lifecycle import TRIAL_ENDS, Actor, SweepState, TrialState
from orchestrator.records import DriverStatus, Sweep, Trial
from tests.support.builders import NOW
from tests.support.ray_cluster import PATIENCE_S, Lab, held_on, tiny_config, train_workers, wait_for

ASHA = {"type": "asha", "grace_steps": 10, "reduction_factor": 2}


def test_a_job_is_started_once_stopped_cleanly_and_continued_to_the_end(lab: Lab) -> None:
    configs = [tiny_config(lr=lr, steps=120, eval_every=20, figures=True) for lr in (1e-2, 1e-2, 3e-5, 1e-5)]
    sweep = lab.add(configs, slots=2, early_terminate=ASHA | {"grace_steps": 20})
    launcher = lab.launcher()
    assert launcher.status(sweep) is DriverStatus.MISSING
    assert launcher.start(sweep) == launcher.start(sweep) == launcher.job_id(sweep.id, 1)
    wait_for(lambda: any(trial.step >= 40 for trial in lab.trials(sweep)), "a trial at step 40")
    assert launcher.status(sweep) is DriverStatus.RUNNING
    _the_dashboard_shows(lab, sweep)
    capacity = launcher.capacity()
    assert (capacity.cpus, capacity.gpus, capacity.nodes) == (2, 0, 1)

    launcher.stop(sweep)
    launcher.stop(sweep)
    wait_for(lambda: launcher.status(sweep) is DriverStatus.STOPPED, "the driver's end")
    wait_for(lambda: not train_workers(lab.head), "the end of the workers")

    sweep = lab.store.sweeps.move_sweep(
        lab.store.sweeps.sweep(sweep.id),
        SweepState.QUEUED,
        actor=Actor.COORDINATOR,
        reason="",
        now=NOW,
    )
    open_trials = [trial for trial in lab.trials(sweep) if trial.state not in TRIAL_ENDS]
    assert open_trials
    assert {trial.state for trial in open_trials} == {TrialState.PENDING}
    sweep = lab.start(sweep, slots=2)
    assert launcher.status(sweep) is DriverStatus.MISSING
    launcher.start(sweep)
    wait_for(lambda: launcher.status(sweep) is DriverStatus.DONE, "the sweep's end")
    assert launcher.failure(sweep) == ""
    _asha_and_sql_agree(lab, sweep)
    for trial in lab.trials(sweep):
        _files_are_there(lab, trial)


def test_a_killed_worker_is_replaced_and_its_trial_resumes_where_it_was(lab: Lab) -> None:
    sweep = lab.add([tiny_config(steps=200, eval_every=20)], slots=1)
    driver = lab.drive(sweep)
    (running,) = wait_for(lambda: [t for t in lab.trials(sweep) if t.step >= 60], "step 60", driver)
    (worker,) = train_workers(lab.head)
    worker.kill()
    assert driver.wait(timeout=PATIENCE_S) == 0
    (trial,) = lab.trials(sweep)
    assert (trial.state, trial.attempt, trial.failures, trial.step) == (TrialState.SUCCEEDED, 2, 0, 200)
    steps = lab.steps_by_attempt(trial)
    # From its last checkpoint, whose own row is reported whether or not it was before
    assert steps[2] == list(range(steps[2][0], 201, 20))
    assert steps[1][-1] <= steps[2][0] <= steps[1][-1] + 20
    assert running.id == trial.id


def test_a_killed_driver_takes_its_groups_along_and_the_next_ends_every_trial_once(lab: Lab) -> None:
    sweep = lab.add([tiny_config(steps=100, eval_every=20, lr=lr) for lr in (1e-2, 1e-3, 1e-4)], slots=2)
    driver = lab.drive(sweep)
    wait_for(lambda: any(t.state in TRIAL_ENDS for t in lab.trials(sweep)), "the first trial's end", driver)
    driver.kill()
    driver.wait()
    before = {trial.id: trial for trial in lab.trials(sweep)}
    wait_for(lambda: not train_workers(lab.head) and not held_on(lab.head), "the end of all that it had")
    assert lab.drive(sweep).wait(timeout=PATIENCE_S) == 0
    for trial in lab.trials(sweep):
        assert (trial.state, trial.step) == (TrialState.SUCCEEDED, 100)
        if before[trial.id].state in TRIAL_ENDS:
            assert trial == before[trial.id]
    ends = [e for e in lab.store.sweeps.events(sweep_id=sweep.id) if "succeeded" in e.what]
    assert sorted(e.trial_id for e in ends if e.trial_id) == sorted(before)


def test_two_workers_train_one_trial_and_survive_an_error_on_one_of_them(lab: Lab) -> None:
    sweep = lab.add([tiny_config(lr=1e-2), tiny_config(lr=5e-3)], slots=1, resources={"workers": 2, "cpu": 1, "gpu": 0})
    broken, sound = lab.trials(sweep)
    # Only rank 0 makes this directory, and fails; rank 1 is left waiting for it in a collective
    lab.directory(broken).mkdir(parents=True)
    (lab.directory(broken) / "checkpoints").write_text("in the way")
    assert lab.drive(sweep).wait(timeout=PATIENCE_S) == 0
    broken, sound = lab.trials(sweep)
    assert (broken.state, broken.failures) == (TrialState.FAILED, 1)
    assert "FileExistsError" in broken.reason
    assert (sound.state, sound.step, sound.attempt) == (TrialState.SUCCEEDED, 30, 1)
    assert (lab.directory(sound) / "log.rank1.txt").exists()


def test_two_sweeps_share_the_cores_and_the_pool_follows_the_allotment(lab: Lab) -> None:
    short = lab.add([tiny_config(lr=1e-2)], slots=1, name="short")
    endless = [tiny_config(steps=1_000_000, lr=lr, eval_every=20) for lr in (1e-2, 3e-3, 1e-3)]
    long = lab.add(endless, slots=1, name="long")
    drivers = [lab.drive(short), lab.drive(long)]
    assert drivers[0].wait(timeout=PATIENCE_S) == 0
    assert len(_running(lab, long)) <= 1
    lab.store.sweeps.allot(long.id, 2, "the short one is done")
    wait_for(lambda: len(_running(lab, long)) == 2, "two trials at once", drivers[1])
    seen = lab.store.sweeps.sweep(long.id)
    lab.store.sweeps.move_sweep(seen, SweepState.CANCELLED, actor=Actor.COORDINATOR, reason="seen enough", now=NOW)
    assert drivers[1].wait(timeout=PATIENCE_S) == 0
    assert {trial.state for trial in lab.trials(short)} == {TrialState.SUCCEEDED}
    assert {trial.state for trial in lab.trials(long)} == {TrialState.CANCELLED}


def test_sigterm_is_answered_before_the_groups_are_up(lab: Lab) -> None:
    sweep = lab.add([tiny_config()], slots=1)
    driver = lab.drive(sweep)
    log = lab.settings.home / f"driver-{sweep.id}.log"
    wait_for(lambda: "pool: 1 slots" in log.read_text(), "the pool", driver)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=PATIENCE_S) == 143
    assert lab.trials(sweep)[0].state is TrialState.PENDING


def test_a_driver_whose_groups_cannot_be_kept_gives_up_and_says_why(lab: Lab) -> None:
    sweep = lab.add([tiny_config()], slots=1)
    runs = lab.settings.storage / "sweeps" / str(sweep.id) / "ray"
    runs.mkdir(parents=True)
    # A next start may come before the last one's name is free again, and takes another
    for slot in range(STARTS_BEFORE_GIVING_UP + 1):
        (runs / f"{sweep.name}-{sweep.id}-slot-{slot}").write_text("in the way")
    assert lab.drive(sweep).wait(timeout=PATIENCE_S) == 1
    assert f"no group can be kept, {STARTS_BEFORE_GIVING_UP} times in a row" in lab.driver_log(sweep).read_text()
    assert lab.trials(sweep)[0].state is TrialState.PENDING


def test_a_driver_whose_sweep_was_closed_leaves_it_alone_and_holds_nothing(lab: Lab) -> None:
    sweep = lab.add([tiny_config(steps=100_000, eval_every=20)] * 50, slots=2)
    driver = lab.drive(sweep)
    wait_for(lambda: _running(lab, sweep), "a running trial", driver)
    lab.store.sweeps.move_sweep(sweep, SweepState.CANCELLED, actor=Actor.COORDINATOR, reason="not needed", now=NOW)
    assert any("placement_groups" in each for each in held_on(lab.head))
    assert driver.wait(timeout=PATIENCE_S) == 0
    assert {trial.state for trial in lab.trials(sweep)} == {TrialState.CANCELLED}
    wait_for(lambda: not held_on(lab.head), "the end of all actors and placement groups")


def _running(lab: Lab, sweep: Sweep) -> list[Trial]:
    return [trial for trial in lab.trials(sweep) if trial.state is TrialState.RUNNING]


def _the_dashboard_shows(lab: Lab, sweep: Sweep) -> None:
    runs = _get(lab, "/api/train/v2/runs/v1")["train_runs"]
    assert {f"{sweep.name}-{sweep.id}-slot-{n}" for n in range(2)} <= {run["name"] for run in runs}
    actors = _get(lab, "/api/v0/actors?limit=1000&detail=true")["data"]["result"]["result"]
    names = {actor["name"] for actor in actors} | {actor["repr_name"] for actor in actors}
    assert f"{sweep.name}-{sweep.id} mailbox, attempt 1" in names
    jobs = _get(lab, "/api/jobs/")
    assert [job["metadata"]["sweep"] for job in jobs if job["submission_id"] == lab.launcher().job_id(sweep.id, 1)] == [
        sweep.name
    ]


def _asha_and_sql_agree(lab: Lab, sweep: Sweep) -> None:
    """Every stop in SQL follows from what SQL holds: the last report is below the median of those at its rung."""
    trials = lab.trials(sweep)
    assert {trial.state for trial in trials} <= {TrialState.SUCCEEDED, TrialState.STOPPED}
    stopped = [trial for trial in trials if trial.state is TrialState.STOPPED]
    assert stopped
    curves = {trial.id: dict(lab.store.trials.curve(trial.id, "val_bpb")) for trial in trials}
    for trial in stopped:
        assert trial.reason.startswith(f"stopped by ASHA at step {trial.step}: val_bpb")
        assert max(curves[trial.id]) == trial.step < 120
        at_rung = sorted(curve[trial.step] for curve in curves.values() if trial.step in curve)
        assert curves[trial.id][trial.step] > at_rung[0]
    for trial in trials:
        if trial.state is TrialState.SUCCEEDED:
            assert sorted(curves[trial.id]) == list(range(20, 121, 20))


def _files_are_there(lab: Lab, trial: Trial) -> None:
    directory = lab.directory(trial)
    assert json.loads((directory / "config.json").read_text())["training"]["lr"] == trial.config["training"]["lr"]
    assert f"step {trial.step}" in (directory / "log.txt").read_text()
    assert trial.checkpoint_path == str(directory / "checkpoints")
    assert list((directory / "checkpoints").glob("*.ckpt"))
    drawn = {path.name for path in (directory / "checkpoints/figures").iterdir()}
    assert drawn == {"learning_curve.png", "gate_histogram.png", "memory_profile.png"}


def _get(lab: Lab, path: str) -> Any:
    with urllib.request.urlopen(lab.head.dashboard_url + path, timeout=10) as answer:
        return json.load(answer)
