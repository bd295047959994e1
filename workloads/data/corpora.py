"""Text corpora by name or path, as bytes with a split."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from workloads.datasets.texts import TEXTS, Text, by_hash, by_offset, in_parts, read_text
from workloads.errors import DataError, nearest

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Frozen:
    """A corpus kept in the repository.

    filename: beside this module. sha256: of the whole file. licence: SPDX name.
    """

    filename: str
    sha256: str
    licence: str


FROZEN = {
    "python_reference": Frozen(
        "python_reference.txt",
        "2a95af4ac93f5b719944030ce3769070ddf827d847cba42192afa8da989e5dc4",
        "PSF-2.0",
    ),
}

STDLIB = "python_stdlib"
NOT_STDLIB = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "idle_test",
}

PARTS = ("train", "valid", "test")


def read_corpus(name: str) -> Text:
    """A corpus, laid out by its split: 90/5/5 by offset, but for those that come in documents or in parts.

    Args:
        name: a name of `FROZEN`; "python_stdlib", the sources of this Python's standard library, split by file; a text
            of `workloads.datasets`; or the path of a file (enwik8, text8, ...), or of a folder. A folder of three files
            named for train, valid and test, as WikiText's are, keeps that split; the files of any other are joined in
            the order of their relative paths with a newline between. Hidden files are left out.

    Raises:
        DataError: neither a known name nor a path that holds text, or a frozen copy that has been changed.
    """
    if name in FROZEN:
        return by_offset(_frozen(name, FROZEN[name]))
    if name == STDLIB:
        return _standard_library()
    if name in TEXTS:
        return read_text(name)
    path = Path(name).expanduser()
    if path.is_file():
        text = by_offset(path.read_bytes())
    elif path.is_dir():
        text = _folder(path)
    else:
        advice = nearest(name, (*FROZEN, STDLIB, *TEXTS))
        raise DataError(
            f"corpus {name!r} is neither a known name nor a file or folder on this machine. {advice} "
            "Give a name, or the path of a text file that every worker can read."
        )
    if not text.data:
        raise DataError(f"corpus {name!r} holds no bytes. Give a file or folder with text in it.")
    return text


def _frozen(name: str, entry: Frozen) -> bytes:
    path = HERE / entry.filename
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"corpus {name!r}: {path} is missing. Restore it: git checkout -- {path}") from None
    got = hashlib.sha256(data).hexdigest()
    if got != entry.sha256:
        raise DataError(
            f"corpus {name!r}: {path} has sha256 {got[:16]}…, expected {entry.sha256[:16]}…. "
            f"Losses compare only on equal data; restore it: git checkout -- {path}"
        )
    return data


def _folder(root: Path) -> Text:
    found = [p for p in root.rglob("*") if p.is_file()]
    visible = [p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    paths = sorted(visible, key=lambda p: p.relative_to(root).as_posix())
    parts = [[p for p in paths if part in p.name] for part in PARTS]
    if len(paths) == len(PARTS) and all(len(part) == 1 for part in parts):
        return in_parts(*(part.read_bytes() for (part,) in parts))
    return by_offset(b"\n".join(p.read_bytes() for p in paths))


def _standard_library() -> Text:
    root = Path(sysconfig.get_path("stdlib"))
    names = sorted(p.relative_to(root) for p in root.rglob("*.py"))
    return by_hash({n.as_posix(): (root / n).read_bytes() for n in names if not NOT_STDLIB & set(n.parts)}, b"\n")
