"""The byte language model's data: checksum, split, every validation byte scored once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from workloads import build_task
from workloads.data import corpora
from workloads.errors import DataError
from workloads.tasks.base import IGNORE
from workloads.tasks.ngram import bits_per_byte


def test_the_frozen_corpus_is_split_90_5_5_by_offset():
    task = build_task("bytes_lm")
    sizes = task.validation_start, task.test_start - task.validation_start, len(task.bytes) - task.test_start
    assert sizes == (419_575, 23_310, 23_310)
    assert task.fingerprint.startswith("2a95af4ac93f5b71")


def test_an_altered_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "python_reference.txt").write_bytes(b"something else")
    monkeypatch.setattr(corpora, "HERE", tmp_path)
    with pytest.raises(DataError, match="git checkout"):
        build_task("bytes_lm")


def test_batches_are_a_pure_function_of_step_and_seed():
    task = build_task("bytes_lm")
    batch, again = task.batch(4, 1, 3, 16), task.batch(4, 1, 3, 16)
    assert torch.equal(batch.inputs, again.inputs)
    assert not torch.equal(batch.inputs, task.batch(5, 1, 3, 16).inputs)
    assert not torch.equal(batch.inputs, task.batch(4, 2, 3, 16).inputs)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_training_windows_never_reach_the_validation_split(tmp_path: Path):
    path = tmp_path / "text"
    path.write_bytes(b"a" * 1800 + b"b" * 200)
    task = build_task("bytes_lm", corpus=str(path))
    seen = torch.cat([task.batch(step, 0, 64, 100).targets for step in range(50)])
    assert (seen == ord("a")).all()


@pytest.mark.parametrize("length", [7, 64, 100_000 // 5])
def test_every_validation_byte_is_scored_exactly_once(length: int):
    task = build_task("bytes_lm")
    scored = np.concatenate([b.targets[b.targets != IGNORE].numpy() for b in task.validation(5, length)])
    assert (scored == task.validation_bytes).all()


def test_bits_per_byte_of_a_uniform_model_are_eight():
    task = build_task("bytes_lm")
    metrics = task.evaluate(lambda inputs: torch.zeros(*inputs.shape, 256), 16, 512)
    assert metrics["val_bpb"] == pytest.approx(8.0, rel=1e-6)
    assert metrics["val_loss"] == pytest.approx(math.log(256), rel=1e-6)


def test_the_unigram_baseline_agrees_with_the_count_by_hand(tmp_path: Path):
    path = tmp_path / "text"
    path.write_bytes(b"ab" * 1000)
    # 900 of each in 1,800; two kinds, so that Witten-Bell gives 2/1802 of the mass to all 256 alike
    expected = -math.log2((900 + 2 / 256) / 1802)
    assert build_task("bytes_lm", corpus=str(path)).baseline(16)["unigram"] == pytest.approx(expected)


def test_the_ngram_model_follows_its_formula_on_a_text_small_enough_to_count():
    train = np.frombuffer(b"abab", np.uint8)
    # a twice, b twice, two kinds: p(b) = (2 + 2/256) / 6. After a: b twice, one kind: p(b|a) = (2 + p(b)) / 3
    unigram = (2 + 2 / 256) / 6
    scored = bits_per_byte(train, np.frombuffer(b"a", np.uint8), np.frombuffer(b"b", np.uint8), order=2)
    assert scored == pytest.approx(-math.log2((2 + unigram) / 3))
    # After x nothing was seen: the unigram stands
    scored = bits_per_byte(train, np.frombuffer(b"x", np.uint8), np.frombuffer(b"b", np.uint8), order=2)
    assert scored == pytest.approx(-math.log2(unigram))


def test_the_ngram_probabilities_of_all_next_bytes_sum_to_one():
    task = build_task("bytes_lm")
    train, context = task.train_bytes[:5000], task.train_bytes[5000:5010]
    total = sum(2 ** -bits_per_byte(train, context, np.array([byte], np.uint8)) for byte in range(256))
    assert total == pytest.approx(1.0)


def test_the_order_5_model_reaches_its_known_score_on_the_test_split():
    task = build_task("bytes_lm")
    score = bits_per_byte(task.train_bytes, task.validation_bytes, task.bytes[task.test_start :])
    assert score == pytest.approx(1.7515, abs=5e-4)
    assert task.baseline(64)["ngram5"] < task.baseline(64)["unigram"]


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / ".hidden").write_text("no")
    assert corpora.read_corpus(str(tmp_path)).data == b"first\nsecond"


def test_a_folder_of_three_parts_keeps_its_split(tmp_path: Path):
    for part, text in (("train", "a" * 200), ("valid", "b" * 90), ("test", "c" * 70)):
        (tmp_path / f"wiki.{part}.tokens").write_text(text)
    task = build_task("bytes_lm", corpus=str(tmp_path))
    assert bytes(task.train_bytes) == b"a" * 200
    assert bytes(task.validation_bytes) == b"b" * 90
    assert bytes(task.bytes[task.test_start :]) == b"c" * 70


def test_a_corpus_that_is_not_there_is_named_with_what_would_do():
    with pytest.raises(DataError, match=r"'pyton_reference'.*Did you mean 'python_reference'.*path"):
        build_task("bytes_lm", corpus="pyton_reference")


def test_a_text_too_short_to_validate_on_is_refused(tmp_path: Path):
    (tmp_path / "t").write_text("too short")
    with pytest.raises(DataError, match="longer text"):
        build_task("bytes_lm", corpus=str(tmp_path / "t"))


def test_the_standard_library_is_a_corpus():
    text = corpora.read_corpus("python_stdlib")
    assert 5_000_000 < len(text.data) < 50_000_000
    assert b"def rglob" in text.data
    # 18 twentieths of the files, whatever this Python's are
    assert 0.8 < text.validation_start / len(text.data) < 0.98
