"""People pause, cancel, resume and retry single trials of a sweep that runs, on a real cluster; and drain its node."""

from orchestrator.control import cancel_trial, pause_trial, resume_trial, retry_trial
from orchestrator.lifecycle import TrialState
from tests.support.builders import NOW
from tests.support.clock import FakeClock
from tests.support.ray_cluster import PATIENCE_S, Lab, tiny_config, wait_for

T = TrialState


def test_single_trials_are_paused_cancelled_and_put_back_while_their_sweep_runs(lab: Lab) -> None:
    configs = [tiny_config(steps=100_000, eval_every=20, lr=lr) for lr in (1e-2, 3e-3)]
    sweep = lab.add([*configs, tiny_config(), tiny_config(lr=1e-3)], slots=2)
    driver = lab.drive(sweep)
    long, other, short, last = lab.trials(sweep)
    means = {"user": "ada", "trials": lab.store.trials, "clock": FakeClock(NOW)}
    state = {trial.id: lambda trial=trial: lab.store.trials.trial(trial.id).state for trial in lab.trials(sweep)}

    wait_for(lambda: lab.store.trials.trial(other.id).step >= 20, "a report of the second", driver)
    cancel_trial(last.id, **means)
    pause_trial(long.id, **means)
    wait_for(lambda: state[long.id]() is T.PAUSED, "the pause", driver)
    wait_for(lambda: state[short.id]() is T.SUCCEEDED, "the third, in the slot that came free", driver)
    paused = lab.store.trials.trial(long.id)
    assert paused.checkpoint_path
    resume_trial(long.id, **means)
    wait_for(lambda: lab.store.trials.trial(long.id).step > paused.step, "steps after the pause", driver)
    resumed = lab.store.trials.trial(long.id)
    assert resumed.attempt == 2
    assert lab.steps_by_attempt(resumed)[2][0] >= paused.step
    retry_trial(last.id, user="ada", sweeps=lab.store.sweeps, trials=lab.store.trials, clock=FakeClock(NOW))
    for trial in (long, other):
        cancel_trial(trial.id, **means)
    assert driver.wait(timeout=PATIENCE_S) == 0
    assert [trial.state for trial in lab.trials(sweep)] == [T.CANCELLED, T.CANCELLED, T.SUCCEEDED, T.SUCCEEDED]


def test_trials_leave_a_drained_node_and_come_back_when_it_does(lab: Lab) -> None:
    sweep = lab.add([tiny_config(steps=1500, eval_every=20)], slots=1)
    [trial] = lab.trials(sweep)
    driver = lab.drive(sweep)
    wait_for(lambda: lab.store.trials.trial(trial.id).step >= 20, "a report", driver)
    [node] = lab.launcher().capacity().places
    lab.store.nodes.drain(node.node_id, name=node.name, user="ada", now=NOW)
    wait_for(lambda: lab.store.trials.trial(trial.id).state is T.PENDING, "the end of the attempt", driver)
    assert "is drained" in lab.store.trials.trial(trial.id).reason
    lab.store.nodes.undrain(node.node_id, name=node.name, user="ada", now=NOW)
    assert driver.wait(timeout=PATIENCE_S) == 0
    [trial] = lab.trials(sweep)
    assert (trial.state, trial.attempt, trial.step) == (T.SUCCEEDED, 2, 1500)
