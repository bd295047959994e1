"""`python -m workloads.fuse CHECKPOINT CHECKPOINT`: specialists of two texts under one gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from workloads import train
from workloads.fuse import fuse, main
from workloads.trained import Trained, trained

TEXTS = (
    "one two three four five six seven eight nine ten. ",
    "EINS ZWEI DREI VIER FUENF SECHS SIEBEN ACHT NEUN! ",
)


@pytest.fixture(scope="module")
def specialists(tmp_path_factory: pytest.TempPathFactory) -> list[Trained]:
    folder = tmp_path_factory.mktemp("specialists")
    return [trained(a_trial(folder / str(number), text)) for number, text in enumerate(TEXTS)]


def a_trial(folder: Path, text: str, d_model: int = 16) -> Path:
    folder.mkdir()
    (folder / "text.txt").write_text(text * 60)
    config = {
        "task": {"name": "bytes_lm", "corpus": str(folder / "text.txt")},
        "model": {"d_model": d_model, "n_layers": 1, "mixer": "mingru"},
        "training": {"steps": 60, "batch_size": 4, "sequence_length": 16, "lr": 1e-2, "eval_every": 60,
                     "extrapolate": [], "figures": False},
    }  # fmt: skip
    list(train(config, checkpoint_dir=folder / "checkpoints"))
    return folder / "checkpoints"


def test_the_fused_model_is_near_each_specialist_on_its_own_text(specialists):
    found = fuse(specialists, steps=60, lr=0.1)
    for task in range(2):
        own, other = found.alone[task][task], found.alone[1 - task][task]
        assert found.together[task] < own + 0.15 * (other - own)
        assert found.weights[task][task] > 0.7
        assert sum(found.weights[task]) == pytest.approx(1)
    assert found.losses[-1] < found.losses[0]


def test_without_training_the_gate_is_the_mean_and_the_specialists_are_left_as_they_were(specialists):
    before = fuse(specialists, steps=0)
    assert before.weights == ((0.5, 0.5), (0.5, 0.5))
    assert fuse(specialists, steps=5, joint_steps=5).losses[-1] < 5
    assert fuse(specialists, steps=0) == before


def test_the_command_prints_each_task_and_refuses_what_does_not_fit(specialists, tmp_path, capsys):
    assert main([*(str(each.path) for each in specialists), "--steps", "2"]) == 0
    assert capsys.readouterr().out.count("val_bpb") == 2
    wide = a_trial(tmp_path / "wide", TEXTS[0], d_model=8)
    assert main([str(specialists[0].path), str(wide)]) == 2
    assert "must share d_model" in capsys.readouterr().err
