"""A wrong file gets one clear message, exit code 2, and nothing is queued."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.journey.conftest import Shell

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]

GOOD = """\
name: wrong
workload:
  task: bytes_lm
  model: {d_model: 16, n_layers: 1}
  training: {steps: 5}
parameters:
  training.lr: [1e-3, 1e-2]
metric: {name: val_bpb, goal: minimize}
resources: {workers: 1, cpu: 1, gpu: 0}
"""

MISTAKES = {
    "unknown key": (("workload:", "worklod:"), ":2:1: unknown key 'worklod'", "Did you mean 'workload'"),
    "wrong type": (("steps: 5", "steps: five"), ":5:21: ", "got 'five'"),
    "unknown parameter": (("training.lr:", "training.lrate:"), ":7:3: no workload has a parameter", "training.lr"),
    "metric never reported": (("val_bpb", "val_bpd"), ":8:16: the workload never reports", "Did you mean 'val_bpb'"),
    "unknown task": (("task: bytes_lm", "task: byte_lm"), ":3:9: 'byte_lm' is not a known name", "bytes_lm"),
    "not YAML": (("{d_model: 16", "{d_model: 16]"), ":4:", "not YAML"),
}


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path / "home")


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_wrong_file_is_refused_before_anything_starts(shell, tmp_path, kind):
    (before, after), place, advice = MISTAKES[kind]
    file = tmp_path / "wrong.yaml"
    assert before in GOOD
    file.write_text(GOOD.replace(before, after))
    for command in ("submit", "validate"):
        err = shell.orch(command, str(file), code=2).stderr
        assert f"{file}{place}" in err
        assert advice in err
        assert "Traceback" not in err
    assert not (shell.home / "run.json").exists()


def test_a_missing_file_is_named_with_its_neighbours(shell, tmp_path):
    (tmp_path / "other.yaml").write_text(GOOD)
    err = shell.orch("submit", str(tmp_path / "mine.yaml"), code=2).stderr
    assert "mine.yaml: there is no such file" in err
    assert "other.yaml" in err


def test_more_gpus_than_the_cluster_could_ever_give(service, tmp_path):
    file = tmp_path / "greedy.yaml"
    file.write_text(GOOD.replace("name: wrong", "name: greedy").replace("gpu: 0", "gpu: 64"))
    err = service.orch("submit", str(file), code=2).stderr
    assert f"{file}:9:" in err
    assert "64 GPUs" in err
    assert "whole cluster has" in err
    assert all(sweep["name"] != "greedy" for sweep in service.json("list")["sweeps"])


def test_an_unknown_sweep_is_told_the_nearest(service, sweep_file):
    service.orch("submit", sweep_file("nearby"), "--wait")
    err = service.orch("show", "nearbi", code=2).stderr
    assert "'nearbi'" in err
    assert "nearby" in err


def test_a_service_that_cannot_be_reached_is_exit_code_3(shell):
    assert "orch up" in shell.orch("list", code=3).stderr
    shell.env |= {"ORCH_URL": "http://127.0.0.1:9", "ORCH_TOKEN": "x"}
    assert "does not answer" in shell.orch("list", code=3).stderr


@pytest.mark.parametrize("words", [["submit"], ["list", "--format", "xml"], ["nonsense"], ["list", "--limit", "0"]])
def test_wrong_words_are_exit_code_2(shell, words):
    assert "Traceback" not in shell.orch(*words, code=2).stderr


def test_help_imports_nothing_heavy():
    heavy = ("torch", "ray", "mlflow", "sqlalchemy", "fastapi")
    code = f"import sys, orchestrator.cli.main; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
