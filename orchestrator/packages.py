"""A sweep's own code as a package: files under one name, which is the hash of what they say.

The same files make the same package on every machine, and a sweep that names it can never run anything else.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.errors import BadInput

MOST_BYTES = 3 * 1024 * 1024
"""Of a package, compressed: it travels with a submission. Data come to the nodes by other roads."""
MOST_UNPACKED_BYTES = 64 * 1024 * 1024
MOST_FILES = 5000
PIECE = 64 * 1024
TOO_MUCH = f"a package has at most {MOST_FILES:,} files of {MOST_UNPACKED_BYTES:,} bytes in all."
NO_CODE = {"__pycache__", "node_modules", "build", "dist"}


@dataclass(frozen=True, slots=True)
class Package:
    """name: sha256 of paths and contents. content: a zip file of them. files: how many."""

    name: str
    content: bytes
    files: int


def pack(path: Path) -> Package:
    """The package of a module's file, or of all that lies in a directory, which is where imports will look.

    Hidden files, links and caches stay behind.

    Raises:
        BadInput: there is nothing, or too much.
    """
    if path.is_file():
        found = {path.name: path.read_bytes()}
    elif path.is_dir():
        found = _files_in(path)
    else:
        raise BadInput(f"code: {path}: there is no such file or directory.")
    if not found:
        raise BadInput(f"code: {path}: there is nothing in it to package.")
    if len(found) > MOST_FILES:
        raise BadInput(
            f"code: {path} has {len(found):,} files, at most {MOST_FILES:,} make a package; name a part of it."
        )
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(found.items()):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    content = memory.getvalue()
    if len(content) > MOST_BYTES:
        raise BadInput(
            f"code: {path} makes a package of {len(content):,} bytes, more than {MOST_BYTES:,}: leave data out of it, "
            "or name the part that is code."
        )
    return Package(_hash(found), content, len(found))


def unpack(name: str, content: bytes, storage: Path) -> int:
    """Put a package into the storage, once; how many files it has. Nothing is left behind where it is refused.

    Raises:
        BadInput: it is no package, or not the one of this name.
    """
    found = _read(content)
    if _hash(found) != name:
        raise BadInput(f"what came is not the package {name}: its content has the hash {_hash(found)}.")
    if not has(name, storage):
        storage.joinpath("code").mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=storage / "code"))
        try:
            for each, text in found.items():
                target = temporary / each
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(text)
            temporary.chmod(0o755)
            temporary.rename(directory(name, storage))
        except OSError:
            # Somebody else was faster: what is there under this name is the same
            if not has(name, storage):
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return len(found)


def directory(name: str, storage: Path) -> Path:
    """Where a package lies, unpacked."""
    return storage / "code" / name


def has(name: str, storage: Path) -> bool:
    """Whether it is there."""
    return directory(name, storage).is_dir()


def _files_in(root: Path) -> dict[str, bytes]:
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [each for each in folders if not each.startswith(".") and each not in NO_CODE]
        for each in names:
            file = Path(folder, each)
            if not each.startswith(".") and not each.endswith(".pyc") and file.is_file() and not file.is_symlink():
                found[file.relative_to(root).as_posix()] = file.read_bytes()
                if sum(map(len, found.values())) > MOST_UNPACKED_BYTES:
                    raise BadInput(f"code: {root} has more than {MOST_UNPACKED_BYTES:,} bytes: leave data out of it.")
    return found


def _read(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > MOST_UNPACKED_BYTES:
                raise BadInput(TOO_MUCH)
            found, left = {}, MOST_UNPACKED_BYTES
            for entry in entries:
                name = _checked(entry.filename)
                text = _member(archive, entry, left)
                found[name], left = text, left - len(text)
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise BadInput(f"what came is no package: {error}") from None
    if not found:
        raise BadInput("what came is a package of nothing.")
    return found


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    """What a file of the archive says, read in pieces: the size that it declares may be a lie.

    Raises:
        BadInput: it has more than `most` bytes, or is packed in a way that cannot be unpacked in pieces.
    """
    # Of bzip2 and lzma, zipfile unpacks all that a few bytes stand for before it gives back the first
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInput(f"a package's files are stored or deflated; {entry.filename!r} is neither.")
    found = bytearray()
    with archive.open(entry) as file:
        while piece := file.read(PIECE):
            found += piece
            if len(found) > most:
                raise BadInput(TOO_MUCH)
    return bytes(found)


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or str(path) != name or name == ".":
        raise BadInput(f"a package has no file {name!r}.")
    return name


def _hash(files: Mapping[str, bytes]) -> str:
    found = hashlib.sha256()
    for name, content in sorted(files.items()):
        found.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        found.update(content)
    return found.hexdigest()
