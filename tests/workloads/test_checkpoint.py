"""Checkpoint files: whole or not taken, safe to load, few."""

from __future__ import annotations

import pickle
import random
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from workloads import checkpoint
from workloads.checkpoint_files import digest
from workloads.errors import CheckpointError


def save(directory: Path, step: int, *, keep: int = 2, best: bool = False) -> Path:
    return checkpoint.save(directory, step, {"step": step, "w": torch.arange(step)}, keep=keep, best=best)


def test_what_was_saved_is_loaded(tmp_path: Path):
    content = checkpoint.load(save(tmp_path, 5))
    assert content["step"] == 5
    assert torch.equal(content["w"], torch.arange(5))


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied"])
def test_a_damaged_file_is_passed_over_for_the_one_before(tmp_path: Path, damage: str):
    good, bad = save(tmp_path, 5), save(tmp_path, 10)
    content = bytearray(bad.read_bytes())
    if damage == "altered":
        content[len(content) // 2] ^= 1
    bad.write_bytes({"truncated": content[: len(content) // 2], "altered": content, "emptied": b""}[damage])
    assert checkpoint.latest(tmp_path) == good
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoint.load(bad)


def test_a_write_that_was_cut_off_leaves_nothing_that_looks_like_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    good = save(tmp_path, 5)

    def full_disk(content: object, file: object) -> None:
        file.write(b"half a checkpoint")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 10)
    assert checkpoint.latest(tmp_path) == good
    assert [path.name for path in tmp_path.iterdir()] == [good.name]


def test_a_disk_that_is_full_says_so_and_the_older_checkpoint_stays(tmp_path: Path):
    good = save(tmp_path, 5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=f"checkpoint of step 10 cannot be written to {tmp_path}: File too large"):
            checkpoint.save(tmp_path, 10, {"weight": torch.zeros(10_000)}, keep=2, best=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint.latest(tmp_path) == good
    assert [path.name for path in tmp_path.iterdir()] == [good.name]


def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path: Path):
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    plain = tmp_path / "plain"
    with plain.open("wb") as file:
        torch.save({"x": Attack()}, file)
    path = plain.rename(tmp_path / f"step-000000001-{digest(plain)}.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)
    assert not (tmp_path / "ran").exists()
    with path.open("rb") as file:
        torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists(), "the attack itself works, so that it is the loader that stopped it"


def test_a_bare_pickle_is_refused(tmp_path: Path):
    plain = tmp_path / "plain"
    plain.write_bytes(pickle.dumps({"step": 1}, protocol=2))
    path = plain.rename(tmp_path / f"step-000000001-{digest(plain)}.ckpt")
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_the_newest_and_the_best_are_kept(tmp_path: Path):
    for step in range(1, 7):
        save(tmp_path, step, keep=2, best=step in (1, 3))
    kept = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir())
    assert kept == ["best-000000003", "step-000000005", "step-000000006"]


def test_the_best_serves_when_all_newer_ones_are_damaged(tmp_path: Path):
    save(tmp_path, 1, best=True)
    for step in (2, 3):
        save(tmp_path, step).write_bytes(b"")
    path = checkpoint.latest(tmp_path)
    assert path is not None
    assert path.name.startswith("best-000000001")


def test_a_directory_without_checkpoints_has_no_latest(tmp_path: Path):
    assert checkpoint.latest(tmp_path) is None


def test_a_directory_that_is_not_there_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere"):
        checkpoint.latest(tmp_path / "nowhere")


def test_all_global_generators_are_put_back(tmp_path: Path):
    path = checkpoint.save(tmp_path, 1, {"rng": checkpoint.rng_state()}, keep=1, best=False)
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    checkpoint.set_rng_state(checkpoint.load(path)["rng"])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn
