"""Options of the language and byte tasks. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from workloads.method import Method, option, options


@options
class BytesLM:
    """Byte-level language model over real text; score `val_bpb`, bits per byte on the whole validation split.

    The default corpus is one frozen copy of CPython's language reference (466 KB, PSF licence), split 90/5/5 by offset;
    packaged texts have the licence and the split that `orch data list` and `workloads.datasets.texts` tell. Trivial
    baseline: `unigram`, bytes by their frequency; `ngram5`, an order-5 byte model (interpolated Witten-Bell), is what a
    model that is worth its training must beat.
    """

    metric: ClassVar[str] = "val_bpb"
    goal: ClassVar[str] = "minimize"
    metrics: ClassVar[dict[str, str]] = {"val_accuracy": "maximize"}
    name: Literal["bytes_lm"] = "bytes_lm"
    corpus: str = option(
        "python_reference",
        "Name of a corpus (python_reference, python_stdlib, a text of `orch data list`), or path of a file or a folder "
        "of text.",
        min_length=1,
    )


METHODS = (Method(BytesLM, "workloads.tasks.language:BytesLM", "CPython documentation, PSF-2.0"),)
