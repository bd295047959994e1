"""Options of the polyphonic music tasks. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from workloads.method import Method, option, options


@options
class JSBChorales:
    """Next frame of Bach's chorales as piano rolls; score `val_nll`, nats a frame; `test_nll` beside it.

    One frame a quarter note, 88 keys; a frame's loss is the binary cross-entropy summed over the keys, averaged over
    all frames of all pieces, the first (predicted from silence) included. Training draws whole pieces, padded to the
    batch's longest; a step's nominal length is the mean length of a piece.

    JSB-m21: the scores of music21 10.5.1 (taken for public domain by that package), 372 of the 382 chorales of
    Boulanger-Lewandowski et al. 2012 with their split: 222, 73 and 77 pieces. It is not the original file: figures
    lie within about 0.1 nat of it and are reported as JSB-m21. Fetch: orch data prepare jsb_m21.
    Trivial baselines: `unigram`, each key by its frequency; `logistic`, a frame from the one before.
    """

    metric: ClassVar[str] = "val_nll"
    goal: ClassVar[str] = "minimize"
    metrics: ClassVar[dict[str, str]] = {"test_nll": "minimize"}
    name: Literal["jsb_chorales"] = "jsb_chorales"


@options
class ToyChorales:
    """Next frame of generated four-voice chorales; for quick tests of everything that `jsb_chorales` needs.

    A Markov chain over the triads of C major; the bass takes the root, each upper voice the chord's tone nearest to
    where it was, or the next nearest, within its range. Format, loss, score and baselines of `jsb_chorales`.
    Generated from a fixed seed: no source data, no licence. Split: 64, 16 and 16 pieces of 24 to 48 frames.
    """

    metric: ClassVar[str] = "val_nll"
    goal: ClassVar[str] = "minimize"
    metrics: ClassVar[dict[str, str]] = {"test_nll": "minimize"}
    name: Literal["toy_chorales"] = "toy_chorales"
    pieces: int = option(64, "Pieces to train on; a quarter as many in each of validation and test.", ge=4)


METHODS = (
    Method(
        JSBChorales,
        "workloads.tasks.music:JSBChorales",
        "Chung et al. 2014, arXiv:1412.3555; Boulanger-Lewandowski et al. 2012, arXiv:1206.6392",
    ),
    Method(ToyChorales, "workloads.tasks.music:ToyChorales", "orch's own; form of arXiv:1206.6392"),
)
