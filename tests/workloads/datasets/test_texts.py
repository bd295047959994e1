"""Packaged corpora as text with a split."""

from __future__ import annotations

from hashlib import sha256

import pytest

from workloads import build_task
from workloads.datasets.__main__ import check, main
from workloads.datasets.texts import TEXTS, by_document, by_offset, read_text
from workloads.errors import DataError


def test_documents_keep_their_order_within_each_split():
    documents = [str(i).encode() for i in range(40)]
    text = by_document(documents, [i % 20 for i in range(40)], b" ")
    train, rest = text.data[: text.validation_start], text.data[text.validation_start :]
    assert train.split() == [d for i, d in enumerate(documents) if i % 20 < 18]
    assert rest == b"18 3819 39"
    assert text.data[text.test_start :] == b"19 39"


@pytest.mark.parametrize("name", TEXTS)
def test_corpora_are_plain_text_in_three_parts(name: str):
    text = read_text(name)
    assert 0 < text.validation_start < text.test_start < len(text.data)
    assert text.data.decode().isprintable() or "\n" in text.data.decode()


def test_speeches_are_dealt_by_their_number():
    text = read_text("sotu")
    assert text.data[text.validation_start : text.test_start] == b"speech 18\n\nspeech 38"
    assert text.data[text.test_start :] == b"speech 19\n\nspeech 39"


def test_fortunes_are_dealt_by_their_content():
    text = read_text("fortunes")
    parts = text.data[: text.validation_start], text.data[text.validation_start :]
    assert not set(parts[0].split(b"\n%\n")) & set(parts[1].split(b"\n%\n"))


def test_the_split_of_documents_belongs_to_what_results_compare_under():
    same_bytes = by_document([b"a" * 90, b"b" * 5, b"c" * 5], [0, 18, 19], b"")
    assert same_bytes.fingerprint == by_offset(same_bytes.data).fingerprint == sha256(same_bytes.data).hexdigest()
    other_split = by_document([b"a" * 80, b"a" * 10 + b"b" * 5, b"c" * 5], [0, 18, 19], b"")
    assert other_split.data == same_bytes.data
    assert other_split.fingerprint != same_bytes.fingerprint


def test_the_language_task_uses_the_corpus_and_its_split():
    task = build_task("bytes_lm", corpus="king_james")
    text = read_text("king_james")
    assert bytes(task.bytes) == text.data
    assert (task.validation_start, task.test_start) == (text.validation_start, text.test_start)


def test_an_unknown_corpus_is_answered_with_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'king_james'"):
        read_text("king_jame")


@pytest.mark.parametrize(
    ("name", "figure"),
    [("king_james", "bytes: train 2"), ("jsb_m21", "train: 48 pieces"), ("mnist_5k", "images (10, 28, 28)"),
     ("letter", "features (5, 2), classes 3"), ("co2", "length 3")],
)  # fmt: skip
def test_check_tells_the_figures_of_each_kind(name: str, figure: str):
    assert any(figure in line for line in check(name))


def test_the_command_line_lists_checks_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    assert main(["list"]) == 0
    listing = capsys.readouterr().out
    assert "jsb_m21              here  pip music21 10.5.1" in listing
    assert main(["check", "co2"]) == 0
    monkeypatch.setenv("ORCH_DATA_DIR", str(tmp_path_factory.mktemp("empty")))
    assert main(["check", "co2"]) == 1
    assert "orch data prepare co2" in capsys.readouterr().err
