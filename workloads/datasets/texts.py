"""Larger byte corpora by name, each with its own split. Torch-free."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from workloads.datasets.catalogue import dataset
from workloads.datasets.store import folder
from workloads.errors import DataError, nearest

SHARES = 20
"""Documents are dealt into twentieths: the last but one for validation, the last for test."""


@dataclass(frozen=True, slots=True)
class Text:
    """A corpus laid out as train, then validation from `validation_start` on, then test from `test_start` on."""

    data: bytes
    validation_start: int
    test_start: int

    @property
    def fingerprint(self) -> str:
        """sha256 under which results compare: of the bytes, and of a split that is not by offset."""
        digest = hashlib.sha256(self.data)
        if self != by_offset(self.data):
            digest.update(f"{self.validation_start} {self.test_start}".encode())
        return digest.hexdigest()


def read_text(name: str) -> Text:
    """The corpus called `name`; see `TEXTS` for the names.

    Raises:
        DataError: unknown name, or its data set is not on this machine.
    """
    if name not in TEXTS:
        raise DataError(f"{name!r} is not a known corpus. {nearest(name, TEXTS)}")
    return TEXTS[name]()


def by_offset(data: bytes) -> Text:
    """90% train, 5% validation, 5% test, cut at byte offsets."""
    return Text(data, len(data) * 90 // 100, len(data) * 95 // 100)


def by_document(documents: Sequence[bytes], shares: Sequence[int], between: bytes) -> Text:
    """Documents in their order within each split, joined by `between`; shares: 0..17 train, 18 validation, 19 test."""
    kept: dict[str, list[bytes]] = {"train": [], "validation": [], "test": []}
    for document, share in zip(documents, shares, strict=True):
        kept[{SHARES - 2: "validation", SHARES - 1: "test"}.get(share, "train")].append(document)
    return in_parts(*(between.join(part) for part in kept.values()))


def by_hash(documents: Mapping[str, bytes], between: bytes) -> Text:
    """Documents by name, dealt into shares by sha256(name) mod 20; see `by_document`."""
    return by_document(list(documents.values()), [_share(name.encode()) for name in documents], between)


def in_parts(train: bytes, validation: bytes, test: bytes) -> Text:
    """A corpus that comes in its three parts."""
    return Text(train + validation + test, len(train), len(train) + len(validation))


def _share(content: bytes) -> int:
    return int(hashlib.sha256(content).hexdigest(), 16) % SHARES


def _state_of_the_union() -> Text:
    root = folder(dataset("sotu"))
    paths = sorted((root / "data").glob("*.txt"))
    return by_document([p.read_bytes() for p in paths], [i % SHARES for i in range(len(paths))], b"\n\n")


def _king_james() -> Text:
    path = folder(dataset("king_james")) / "bible/data/kjv.jsonl"
    verses = (json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines())
    return by_offset("\n".join(verses).encode())


def _jargon_file() -> Text:
    return by_offset(
        gzip.decompress((folder(dataset("jargon_file")) / "usr/share/doc/jargon-text/jargon.txt.gz").read_bytes())
    )


def _fortunes() -> Text:
    """By item: what stands between lines of a percent sign alone."""
    root = folder(dataset("fortunes")) / "usr/share/games/fortunes"
    items = b"".join(path.read_bytes() for path in sorted(root.iterdir())).split(b"\n%\n")
    return by_document(items, [_share(item) for item in items], b"\n%\n")


def _perl_pod() -> Text:
    root = folder(dataset("perl_pod"))
    paths = sorted(root.rglob("*.pod"))
    return by_hash({path.name: path.read_bytes() for path in paths}, b"\n")


def _wikipedia() -> Text:
    entry = dataset("wikipedia_excerpt")
    return by_offset(bz2.decompress((folder(entry) / entry.members[0]).read_bytes()))


TEXTS: Mapping[str, Callable[[], Text]] = {
    "sotu": _state_of_the_union,
    "king_james": _king_james,
    "fortunes": _fortunes,
    "jargon_file": _jargon_file,
    "perl_pod": _perl_pod,
    "wikipedia_excerpt": _wikipedia,
}
"""By name, what reads a corpus: State of the Union addresses 1790-2021 by speech (10.8 MB); the King James Bible
(4.1 MB); fortune cookies by item (2.6 MB); the Jargon File (1.7 MB); Perl's documentation by page (8.8 MB); an excerpt
of Wikipedia's XML (6.1 MB)."""
