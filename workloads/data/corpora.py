"""Text corpora by name or path, as bytes, with their checksum."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from workloads.datasets.texts import TEXTS, Text, by_offset, read_text
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
NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3", "turtledemo"}


def read_split(name: str) -> Text:
    """A corpus with its split: that of its data set where it is one, else 90/5/5 by offset.

    Raises:
        DataError: as `read_corpus`.
    """
    return read_text(name) if name in TEXTS else by_offset(read_corpus(name))


def read_corpus(name: str) -> bytes:
    """The bytes of a corpus.

    Args:
        name: a name of `FROZEN`; "python_stdlib", the sources of this Python's standard library; a text of
            `workloads.datasets`; or the path of a file, or of a folder, whose files are joined in the order of their
            relative paths with a newline between, hidden files left out.

    Raises:
        DataError: neither a known name nor a path that holds text, or a frozen copy that has been changed.
    """
    if name in FROZEN:
        return _frozen(name, FROZEN[name])
    if name == STDLIB:
        return _standard_library()
    if name in TEXTS:
        return read_text(name).data
    path = Path(name).expanduser()
    if path.is_file():
        data = path.read_bytes()
    elif path.is_dir():
        data = b"\n".join(each.read_bytes() for each in _files(path))
    else:
        advice = nearest(name, (*FROZEN, STDLIB, *TEXTS))
        raise DataError(
            f"corpus {name!r} is neither a known name nor a file or folder on this machine. {advice} "
            "Give a name, or the path of a text file that every worker can read."
        )
    if not data:
        raise DataError(f"corpus {name!r} holds no bytes. Give a file or folder with text in it.")
    return data


def sha256(data: bytes) -> str:
    """Hex digest of a corpus: the fingerprint under which results compare."""
    return hashlib.sha256(data).hexdigest()


def _frozen(name: str, entry: Frozen) -> bytes:
    path = HERE / entry.filename
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"corpus {name!r}: {path} is missing. Restore it: git checkout -- {path}") from None
    if sha256(data) != entry.sha256:
        raise DataError(
            f"corpus {name!r}: {path} has sha256 {sha256(data)[:16]}…, expected {entry.sha256[:16]}…. "
            f"Losses compare only on equal data; restore it: git checkout -- {path}"
        )
    return data


def _files(root: Path) -> list[Path]:
    found = [p for p in root.rglob("*") if p.is_file()]
    visible = [p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    return sorted(visible, key=lambda p: p.relative_to(root).as_posix())


def _standard_library() -> bytes:
    """Files in the order of their paths' hashes: a split by offset then takes whole files of all kinds."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = {p.relative_to(root).as_posix(): p for p in root.rglob("*.py")}
    wanted = [name for name, p in paths.items() if not NOT_STDLIB & set(p.relative_to(root).parts)]
    return b"\n".join(paths[name].read_bytes() for name in sorted(wanted, key=lambda name: sha256(name.encode())))
