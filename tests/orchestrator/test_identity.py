"""Trials have an identity: what ran once is shared, what would differ is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster.guards import Limits
from orchestrator.cluster.logpolicies import LogPolicies
from orchestrator.cluster.messages import Reported, Started
from orchestrator.cluster.recorder import Recorder
from orchestrator.errors import BadInput
from orchestrator.identity import identity_of
from orchestrator.lifecycle import TrialState
from orchestrator.records import Sweep, Trial
from orchestrator.sizing import DATA_LAST_S, SubprocessSizer
from orchestrator.store import Store, open_store
from orchestrator.submit import submit
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher
from workloads import build_task
from workloads.tasks.base import data_checksum
from workloads.version import code_version

GRID = """\
name: {name}
workload: {{model: {{d_model: 16, n_layers: 1}}, training: {{steps: 20}}}}
parameters:
  training.lr: [1e-3, 2e-3]
  model.d_model: [8, 16]
metric: {{name: val_bpb, goal: minimize}}
"""
CHECKSUM, CODE = 77, code_version()


class Data:
    """A sizer that knows of data only."""

    checksum = CHECKSUM

    def size(self, config):
        raise BadInput("not asked")

    def data_checksum(self, config):
        return self.checksum


@pytest.fixture
def lone_store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


def accept(store: Store, text: str, *, sizer: Data | None = None, rerun: bool = False) -> Sweep:
    return submit(
        text,
        "f.yaml",
        user="ada",
        store=store.sweeps,
        trials=store.trials,
        launcher=FakeLauncher(),
        clock=FakeClock(),
        sizer=sizer or Data(),
        rerun=rerun,
    ).sweep


def a_recorder(store: Store, sweep: Sweep, trials: list[Trial]) -> Recorder:
    clock = FakeClock()
    policies = LogPolicies(sweep, lambda trial: Path("nowhere"))
    limits = Limits(sweep, store.trials, clock)
    return Recorder(store.trials, sweep, trials, clock, limits, policies, lambda node: False)


def run(store: Store, sweep: Sweep, *, code: str | None = None, last: TrialState = TrialState.SUCCEEDED) -> list[Trial]:
    """Trains every open trial, as its driver would record it. Returns those that ran."""
    trials = [trial for trial in store.trials.trials(sweep.id) if trial.state is TrialState.PENDING]
    recorder = a_recorder(store, sweep, trials)
    for trial in trials:
        recorder.started(trial.id, Started(where="here"))
        for step, value in ((10, 3.0), (20, 2.0 + trial.config["training"]["lr"])):
            metrics = {"val_bpb": value, "val_accuracy": 1 / value, "data_checksum": float(CHECKSUM)}
            recorder.reported(trial.id, Reported(step=step, metrics=metrics, code=code or CODE))
        recorder.ended(trial.id, last, "", "somewhere/checkpoints")
    return [store.trials.trial(trial.id) for trial in trials]


def pending(store: Store, sweep: Sweep) -> int:
    return sum(trial.state is TrialState.PENDING for trial in store.trials.trials(sweep.id))


def test_a_grid_submitted_again_with_three_more_cells_runs_exactly_three(store):
    without = GRID.format(name="first") + 'constraints: ["d_model == 8 and lr < 1.5e-3"]\n'
    assert len(run(store, accept(store, without))) == 1
    whole = accept(store, GRID.format(name="second"))
    ran = run(store, whole)
    assert [(trial.params["model.d_model"], trial.params["training.lr"]) for trial in ran] == [
        (16, 1e-3),
        (8, 2e-3),
        (16, 2e-3),
    ]
    assert all(trial.state is TrialState.SUCCEEDED for trial in store.trials.trials(whole.id))


def test_a_shared_trial_has_the_others_curves_and_says_whose(store):
    first = accept(store, GRID.format(name="first"))
    ran = run(store, first)
    second = accept(
        store,
        GRID.format(name="second").replace("{name: val_bpb, goal: minimize}", "{name: val_accuracy, goal: maximize}"),
    )
    assert pending(store, second) == 0
    for mine, other in zip(store.trials.trials(second.id), ran, strict=True):
        assert (mine.shared_from, mine.identity, mine.attempt) == (other.id, other.identity, 0)
        assert mine.reason.startswith(f"shared from trial {other.id} of sweep {first.id}")
        assert (mine.metrics, mine.step, mine.checkpoint_path) == (other.metrics, 20, "somewhere/checkpoints")
        assert store.trials.curve(mine.id, "val_bpb") == store.trials.curve(other.id, "val_bpb")
        assert (mine.best_step, mine.best) == (20, mine.metrics["val_accuracy"])
    told = [item for item in store.outbox.pending() if item.sweep_id == second.id]
    assert [item.topic for item in told] == ["report", "trial_ended"] * 4
    assert sum(event.what.startswith("shared from") for event in store.sweeps.events(sweep_id=second.id)) == 4


def test_rerun_trains_again_and_its_results_stand_from_then_on(lone_store):
    run(lone_store, accept(lone_store, GRID.format(name="first")))
    again = accept(lone_store, GRID.format(name="again"), rerun=True)
    ran = run(lone_store, again)
    assert len(ran) == 4
    third = lone_store.trials.trials(accept(lone_store, GRID.format(name="third")).id)
    assert [trial.shared_from for trial in third] == [trial.id for trial in ran]


@pytest.mark.parametrize("other", ["code", "data", "seed", "config"])
def test_what_would_come_out_otherwise_is_not_shared(lone_store, other):
    run(lone_store, accept(lone_store, GRID.format(name="first")), code="older" if other == "code" else None)
    text, sizer = GRID.format(name="second"), Data()
    if other == "data":
        sizer.checksum = CHECKSUM + 1
    text += "seeds: [1]\n" if other == "seed" else ""
    text = text.replace("steps: 20", "steps: 30") if other == "config" else text
    assert pending(lone_store, accept(lone_store, text, sizer=sizer)) == 4


@pytest.mark.parametrize("end", [TrialState.STOPPED, TrialState.FAILED])
def test_a_trial_that_did_not_reach_its_end_is_not_shared(lone_store, end):
    run(lone_store, accept(lone_store, GRID.format(name="first")), last=end)
    assert pending(lone_store, accept(lone_store, GRID.format(name="second"))) == 4


def test_a_trial_that_other_code_began_is_nothing_that_another_could_be(lone_store):
    sweep = accept(lone_store, GRID.format(name="first"))
    trial = lone_store.trials.trials(sweep.id)[0]
    recorder = a_recorder(lone_store, sweep, [trial])
    for code, step in (("old", 10), ("new", 20)):
        recorder.started(trial.id, Started(where="here"))
        metrics = {"val_bpb": 2.0, "data_checksum": float(CHECKSUM)}
        recorder.reported(trial.id, Reported(step=step, metrics=metrics, code=code))
        before = lone_store.trials.trial(trial.id).identity
        recorder.ended(trial.id, TrialState.PENDING if step == 10 else TrialState.SUCCEEDED, "")
    assert before is None
    assert lone_store.trials.results([trial.config_hash], project="default") == {}


def test_an_identity_stands_for_one_trial_in_sql(store):
    """Two sweeps that ran the same at once: both keep their trials, one of them is what later ones share."""
    sweeps = [accept(store, GRID.format(name=name)) for name in ("left", "right")]
    left, right = (run(store, sweep) for sweep in sweeps)
    assert [trial.identity for trial in left] == [trial.identity for trial in right]
    known = store.trials.results([trial.config_hash for trial in left], project="default")
    assert known == {trial.identity: trial.id for trial in right}


def test_what_one_project_has_trained_is_nothing_that_another_sees(store):
    """Each has its own result of the same identity, whichever came last."""
    projects = [GRID.format(name="x") + f"project: {name}\n" for name in ("p", "q")]
    ran = [run(store, accept(store, text)) for text in projects]
    assert [len(trials) for trials in ran] == [4, 4]
    assert [trial.identity for trial in ran[0]] == [trial.identity for trial in ran[1]]
    for text, name, own in zip(projects, "pq", ran, strict=True):
        again = store.trials.trials(accept(store, text).id)
        assert [trial.shared_from for trial in again] == [trial.id for trial in own]
        known = store.trials.results([trial.config_hash for trial in own], project=name)
        assert known == {trial.identity: trial.id for trial in own}


def test_a_child_is_another_trial_than_one_that_starts_from_nothing():
    plain = identity_of("c", 0, code="v", data_checksum=1)
    child = identity_of("c", 0, code="v", data_checksum=1, parent=(plain, 10))
    assert len({plain, child, identity_of("c", 0, code="v", data_checksum=1, parent=(plain, 11))}) == 3


def test_the_code_version_changes_with_any_source(tmp_path, monkeypatch):
    package = tmp_path / "a_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/module.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_version(["a_package"])
    assert before == code_version(["a_package"])
    (package / "notes.txt").write_text("no source")
    assert code_version(["a_package"]) == before
    (package / "inner/module.py").write_text("x = 2\n")
    changed = code_version(["a_package"])
    assert changed != before
    (package / "inner/module.py").rename(package / "inner/other.py")
    assert code_version(["a_package"]) not in (before, changed)


def test_the_checksum_that_a_sizer_tells_is_the_one_that_trials_report():
    with SubprocessSizer() as sizer:
        assert sizer.data_checksum({"task": {"name": "adding"}}) == data_checksum(build_task("adding"))
        with pytest.raises(BadInput, match="nowhere"):
            sizer.data_checksum({"task": {"name": "bytes_lm", "corpus": str(Path("/nowhere/text"))}})


def test_a_file_of_data_that_was_written_anew_is_noticed(tmp_path):
    corpus, now = tmp_path / "corpus.txt", [0.0]
    words = {"task": {"name": "bytes_lm", "corpus": str(corpus)}}
    with SubprocessSizer(lambda: now[0]) as sizer:
        corpus.write_text("the old words " * 5000)
        old = sizer.data_checksum(words)
        corpus.write_text("the new words " * 5000)
        assert sizer.data_checksum(words) == old, "the data are not read anew at each question"
        now[0] += DATA_LAST_S
        assert sizer.data_checksum(words) != old
