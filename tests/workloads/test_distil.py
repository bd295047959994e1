"""`python -m workloads.distil CHECKPOINT`: a trained dense model becomes one that chooses how much it computes."""

from __future__ import annotations

from pathlib import Path

import torch

from workloads import train
from workloads.distil import distil, main
from workloads.trained import trained


def a_trial(folder: Path, feedforward: dict[str, object]) -> Path:
    (folder / "text.txt").write_text("".join(f"{n} and {n + 1}; " for n in range(150)))
    config = {
        "task": {"name": "bytes_lm", "corpus": str(folder / "text.txt")},
        "model": {"d_model": 16, "n_layers": 2, "mixer": "mingru", "feedforward": feedforward},
        "training": {"steps": 40, "batch_size": 4, "sequence_length": 16, "lr": 1e-2, "eval_every": 40,
                     "extrapolate": [], "figures": False},
    }  # fmt: skip
    list(train(config, checkpoint_dir=folder / "checkpoints"))
    return folder / "checkpoints"


def test_more_learners_come_nearer_to_the_dense_model_which_is_left_alone(tmp_path, capsys):
    path = a_trial(tmp_path, {"name": "dense", "activation": "gelu"})
    subject = trained(path)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    found = distil(subject, steps=60, joint_steps=40, target=0.25)
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())
    apart = [abs(value - found.dense) for value in found.fixed]
    assert apart[-1] < apart[0]
    assert found.tuned[0] < found.gated[0], "phase 3 trains the task itself"
    assert 0 <= found.tuned[1] <= 1
    assert main([str(path), "--steps", "2", "--joint-steps", "1", "--learners", "2"]) == 0
    assert "val_bpb: dense" in capsys.readouterr().out


def test_a_mixture_has_no_dense_layer_to_distil(tmp_path, capsys):
    path = a_trial(tmp_path, {"name": "moe", "num_experts": 2, "router": {"name": "topk", "k": 1}})
    assert main([str(path)]) == 2
    assert "no dense feed-forward" in capsys.readouterr().err
