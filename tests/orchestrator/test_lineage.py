"""Extending and forking: which trials are made, what they start from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.lineage import checkpoint_word
from orchestrator.errors import BadInput, NotFound
from orchestrator.lifecycle import TrialState
from orchestrator.lineage import Means, extend, fork
from orchestrator.records import Sweep, Trial
from orchestrator.spec import SweepSpec
from orchestrator.store import Store, open_store
from tests.orchestrator.test_identity import Data, accept, run
from tests.support.clock import FakeClock
from workloads import checkpoint

MOE = "{name: moe, num_experts: 4, router: {name: topk, k: 2}}"
TEXT = f"""\
name: parent
project: p
workload: {{model: {{d_model: 16, n_layers: 1, feedforward: {MOE}}}, training: {{steps: 20}}}}
parameters: {{training.lr: [1e-3, 2e-3]}}
early_terminate: {{type: asha, grace_steps: 5}}
constraints: ["lr < 1"]
"""


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


@pytest.fixture
def means(store):
    return Means(store.sweeps, store.trials, FakeClock(), Data())


def trained(store: Store, tmp_path: Path, *, text: str = TEXT, last: TrialState = TrialState.SUCCEEDED) -> Sweep:
    """A sweep whose trials have ended, with checkpoints of steps 10 and 20."""
    sweep = accept(store, text)
    for trial in run(store, sweep, last=last):
        directory = tmp_path / f"checkpoints-{trial.id}"
        for step in (10, 20):
            checkpoint.save(directory, step, {"step": step, "trial": trial.id}, keep=2, best=False)
        store.trials.record([], facts={trial.id: {"checkpoint_path": str(directory)}})
    return sweep


def lines(trials: list[Trial]) -> list[tuple[int | None, int | None, int]]:
    return [(trial.parent_trial_id, trial.parent_step, trial.config["training"]["steps"]) for trial in trials]


def test_a_sweep_goes_on_from_its_last_checkpoints_in_a_sweep_of_its_own(store, means, tmp_path):
    parent = trained(store, tmp_path)
    before = store.trials.trials(parent.id)
    sweep = extend("parent", 60, user="ada", means=means)
    children = store.trials.trials(sweep.id)
    assert lines(children) == [(before[0].id, 20, 60), (before[1].id, 20, 60)]
    assert [trial.params for trial in children] == [{"training.lr": lr, "training.steps": 60} for lr in (1e-3, 2e-3)]
    assert (sweep.name, sweep.project, sweep.user, sweep.metric) == ("parent-to-60", "p", "ada", parent.metric)
    spec = SweepSpec.model_validate(dict(sweep.spec))
    assert (spec.early_terminate, spec.depends_on, spec.workload["training"]["steps"]) == (None, [], 60)
    assert store.trials.trials(parent.id) == before
    assert store.trials.children(before[0].id) == [children[0].id]
    assert list((tmp_path / f"checkpoints-{before[0].id}").glob("kept-000000020-*"))


def test_extending_a_sweep_that_runs_waits_for_its_end(store, means):
    parent = accept(store, TEXT)
    trials = store.trials.trials(parent.id)
    sweep = extend(str(parent.id), 60, user="ada", means=means)
    assert lines(store.trials.trials(sweep.id)) == [(trial.id, 20, 60) for trial in trials]
    assert sweep.spec["depends_on"] == [str(parent.id)]


def test_a_trial_that_was_stopped_goes_on_where_it_was_when_it_is_asked_for_by_itself(store, means, tmp_path):
    parent = trained(store, tmp_path, text=TEXT.replace("steps: 20", "steps: 40"), last=TrialState.STOPPED)
    first = store.trials.trials(parent.id)[0]
    with pytest.raises(BadInput, match="has no trial to extend: its trials are stopped"):
        extend("parent", 60, user="ada", means=means)
    sweep = extend(f"t{first.id}", 40, user="ada", means=means)
    assert lines(store.trials.trials(sweep.id)) == [(first.id, 20, 40)]


@pytest.mark.parametrize(
    ("reference", "steps", "error", "says"),
    [
        ("parent", 20, BadInput, "trial 1 has 20 steps already"),
        ("t1", 5, BadInput, "trial 1 has 20 steps already"),
        ("t99", 60, NotFound, "no trial 99"),
        ("parrent", 60, NotFound, "parent"),
    ],
)
def test_what_cannot_be_extended_is_told(store, means, tmp_path, reference, steps, error, says):
    trained(store, tmp_path)
    with pytest.raises(error, match=says):
        extend(reference, steps, user="ada", means=means)
    assert len(store.sweeps.sweeps()) == 1


def test_a_checkpoint_that_is_gone_is_told_before_anything_is_queued(store, means, tmp_path):
    trained(store, tmp_path)
    for path in tmp_path.glob("checkpoints-2/step-000000020-*"):
        path.unlink()
    with pytest.raises(BadInput, match=r"trial 2: no whole checkpoint of step 20 .* those of steps 10"):
        extend("parent", 60, user="ada", means=means)
    assert len(store.sweeps.sweeps()) == 1


def test_children_share_a_checkpoint_and_differ_in_what_is_set_and_in_their_seeds(store, means, tmp_path):
    parent = store.trials.trials(trained(store, tmp_path).id)[1]
    sweep = fork(parent.id, 10, ["router.balance_weight=[0.0, 1e-3]", "weight_decay=0.5"], 3, user="ada", means=means)
    children = store.trials.trials(sweep.id)
    assert lines(children) == [(parent.id, 10, 20)] * 6
    assert [trial.seed for trial in children] == [0, 1, 2] * 2
    routers = [trial.config["model"]["feedforward"]["router"] for trial in children]
    assert [router["balance_weight"] for router in routers] == [0.0] * 3 + [1e-3] * 3
    assert {trial.config["training"]["weight_decay"] for trial in children} == {0.5}
    assert children[0].params == {
        "training.lr": 2e-3,
        "training.weight_decay": 0.5,
        "model.feedforward.router.balance_weight": 0.0,
    }
    assert sweep.source.startswith(f"# orch fork t{parent.id}@10 --set router.balance_weight=[0.0, 1e-3]")
    assert SweepSpec.model_validate(dict(sweep.spec)).early_terminate is None
    assert store.trials.children(parent.id) == [trial.id for trial in children]


@pytest.mark.parametrize("line_break", ["\n", "\r", "\x85", "\u2028"])
def test_an_assignment_brings_no_other_words_into_the_file(store, means, tmp_path, line_break):
    trained(store, tmp_path)
    text = f"training.weight_decay=0.5{line_break}depends_on: [other] #"
    sweep = fork(1, 10, [text], 1, user="ada", means=means)
    assert not sweep.depends_on
    assert sweep.source.splitlines()[0].startswith("# orch fork")
    assert "depends_on: [other]" not in sweep.source.splitlines()[1:]


def test_the_newest_checkpoint_is_forked_where_no_step_is_named(store, means, tmp_path):
    trained(store, tmp_path)
    sweep = fork(1, None, ["training.steps=50"], 1, user="ada", means=means)
    assert lines(store.trials.trials(sweep.id)) == [(1, 20, 50)]


@pytest.mark.parametrize(
    ("step", "assignments", "says"),
    [
        (15, [], r"no whole checkpoint of step 15 .* steps 10, 20"),
        (20, [], "a child would have 20 steps in all, and starts at step 20"),
        (10, ["lr"], "has the form key=value"),
        (10, ["router.z_los=1"], r"no single 'router.z_los'.*Did you mean"),
        (10, ["name=topk"], "it could be task.name or"),
        (10, ["training.lr=-1"], r"training.lr = -1"),
    ],
)
def test_what_cannot_be_forked_is_told_before_anything_is_queued(store, means, tmp_path, step, assignments, says):
    trained(store, tmp_path)
    with pytest.raises(BadInput, match=says):
        fork(1, step, assignments, 1, user="ada", means=means)
    assert len(store.sweeps.sweeps()) == 1


def test_the_same_fork_again_shares_its_children_and_a_fork_elsewhere_does_not(store, means, tmp_path):
    trained(store, tmp_path)
    run(store, fork(1, 10, ["weight_decay=0.5"], 2, user="ada", means=means))
    again = store.trials.trials(fork(1, 10, ["weight_decay=0.5"], 2, user="ada", means=means).id)
    assert [trial.shared_from is not None for trial in again] == [True, True]
    for other in (
        fork(2, 10, ["weight_decay=0.5"], 2, user="ada", means=means),
        fork(1, 20, ["weight_decay=0.5", "training.steps=30"], 2, user="ada", means=means),
    ):
        assert all(trial.shared_from is None for trial in store.trials.trials(other.id))
    plain = TEXT.replace("name: parent", "name: plain").replace("lr: [1e-3, 2e-3]", "lr: [1e-3]")
    plain = plain.replace("{steps: 20}", "{steps: 20, weight_decay: 0.5}")
    assert all(trial.shared_from is None for trial in store.trials.trials(accept(store, plain).id))


@pytest.mark.parametrize(("text", "found"), [("t17@200", (17, 200)), ("17@200", (17, 200)), ("t17", (17, None))])
def test_a_checkpoint_is_named_by_trial_and_step(text, found):
    assert checkpoint_word(text) == found


@pytest.mark.parametrize("text", ["", "t", "17@", "@3", "t17@best", "17@2.5", "9" * 30])
def test_other_words_name_no_checkpoint(text):
    with pytest.raises(BadInput, match="TRIAL@STEP"):
        checkpoint_word(text)
