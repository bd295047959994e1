"""Chorales: file format, frames, loss and baselines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import workloads.data
from workloads import build_task
from workloads.datasets import music_rolls
from workloads.datasets.music import read_chorales
from workloads.errors import DataError
from workloads.tasks.music import SILENT, padded, toy_chorale


def test_rolls_survive_the_file_format():
    rolls = read_chorales()
    assert {split: len(pieces) for split, pieces in rolls.items()} == {"train": 48, "valid": 8, "test": 8}
    for piece in rolls["train"]:
        assert piece.shape[1] == 88
        assert 24 <= len(piece) <= 48
        assert (piece.sum(1) <= 4).all()


def test_a_frame_is_predicted_from_those_before_it():
    pieces = [toy_chorale(np.random.default_rng(i)) for i in range(3)]
    batch = padded(pieces)
    for row, piece in enumerate(pieces):
        n = len(piece)
        assert (batch.inputs[row, 0] == 0).all()
        assert torch.equal(batch.inputs[row, 1:n], torch.from_numpy(piece[:-1]).float())
        assert torch.equal(batch.targets[row, :n], torch.from_numpy(piece).float())
        assert (batch.targets[row, n:] == SILENT).all()


def test_the_loss_is_summed_over_keys_and_averaged_over_frames_of_all_pieces():
    task = build_task("toy_chorales", pieces=8)
    batch = padded([toy_chorale(np.random.default_rng(i)) for i in range(3)])
    frames = task.weight(batch.targets)
    assert frames == int((batch.targets[:, :, 0] >= 0).sum())
    assert float(task.loss(torch.zeros_like(batch.targets), batch.targets)) == pytest.approx(88 * math.log(2), rel=1e-6)
    logits = torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0))
    p = logits.double().sigmoid()
    nll = -torch.where(batch.targets == 1, p.log(), (1 - p).log())[batch.targets[:, :, 0] >= 0].sum() / frames
    assert float(task.loss(logits, batch.targets)) == pytest.approx(float(nll), rel=1e-5)


def test_the_unigram_baseline_is_the_closed_form():
    task = build_task("jsb_chorales")
    train, held_out = (np.concatenate(task.pieces[split]) for split in ("train", "valid"))
    p = (train.sum(0) + 0.5) / (len(train) + 1)
    nll = -(held_out * np.log(p) + ~held_out * np.log(1 - p)).sum(1).mean()
    assert task.baseline(0)["unigram"] == pytest.approx(nll, rel=1e-5)


def test_the_frame_before_tells_more_than_frequencies():
    baselines = build_task("toy_chorales").baseline(0)
    assert baselines["logistic"] < baselines["unigram"] - 0.5


def test_toy_pieces_stay_in_the_voices_ranges_and_differ_between_splits():
    task = build_task("toy_chorales", pieces=16)
    pieces = [piece for split in task.pieces.values() for piece in split]
    assert len({piece.tobytes() for piece in pieces}) == 24
    sounding = np.flatnonzero(np.concatenate(pieces).any(0)) + 21
    assert sounding.min() >= 40
    assert sounding.max() <= 81
    assert set(sounding % 12) == {0, 2, 4, 5, 7, 9, 11}


def test_missing_chorales_are_named_with_the_command_that_brings_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORCH_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"music21 10\.5\.1.*orch data prepare jsb_m21"):
        build_task("jsb_chorales")


def test_the_split_names_every_chorale_once():
    path = Path(workloads.data.__file__).with_name("jsb_split_manifest.json")
    split = json.loads(path.read_text())["split"]
    assert {name: len(files) for name, files in split.items()} == {"train": 222, "valid": 73, "test": 77}
    assert len({file for files in split.values() for file in files}) == 372


class FakeScore:
    """What the roll builder reads of a score: (begin, length, pitches) a note, by voice."""

    def __init__(self, voices: dict[str, list[tuple[float, float, list[int]]]], end: float) -> None:
        self.parts = [part(name, notes) for name, notes in voices.items()]
        self.highestTime = end

    def expandRepeats(self) -> FakeScore:
        return self


class Notes(list[Any]):
    def last(self) -> Any:
        return self[-1]


def part(name: str, notes: list[tuple[float, float, list[int]]]) -> Any:
    made = Notes(
        SimpleNamespace(
            offset=begin,
            duration=SimpleNamespace(quarterLength=length, isGrace=length == 0),
            pitches=[SimpleNamespace(midi=pitch) for pitch in pitches],
        )
        for begin, length, pitches in notes
    )
    return SimpleNamespace(partName=name, flatten=lambda: SimpleNamespace(notes=made))


def test_a_roll_has_what_sounds_at_each_quarter_in_c_an_octave_up():
    score = FakeScore(
        {
            "Bass": [(0, 2, [50]), (2, 1, [45]), (3, 1, [50])],
            "Soprano": [(0, 1, [74]), (1, 0.5, [76]), (1.5, 1.5, [78]), (3, 0, [80]), (3, 1, [81])],
            "Alto": [(0, 4, [69])],
            "Tenor": [(0.5, 2, [62])],
        },
        4.0,
    )
    roll = music_rolls.roll(score)
    sounding = [sorted((np.flatnonzero(frame) + 21).tolist()) for frame in roll]
    down_a_tone_up_an_octave = 12 - 2
    original = [[50, 69, 74], [50, 62, 69, 76], [45, 62, 69, 78], [50, 69, 81]]
    assert sounding == [[pitch + down_a_tone_up_an_octave for pitch in frame] for frame in original]
