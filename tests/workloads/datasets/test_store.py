"""Where data sets lie: found, checked, put in place in one move, never half there."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_data import put
from workloads import datasets
from workloads.datasets import store
from workloads.datasets.catalogue import DATASETS, dataset
from workloads.errors import DataError

CO2 = {"statsmodels/datasets/co2/co2.csv": b"date,co2\n19580329,316.1\n"}


def test_every_entry_of_the_catalogue_is_whole():
    for name, entry in DATASETS.items():
        assert name == entry.name
        assert len(entry.sha256) == 64
        assert entry.size_bytes > 0
        assert entry.members
        assert all([entry.summary, entry.version, entry.licence])


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'electricity'"):
        datasets.prepare("electricty")


def test_a_missing_set_is_named_with_the_command_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"pip package statsmodels 0\.15\.0; fetch it: orch data prepare co2"):
        datasets.folder(dataset("co2"))


def test_what_was_put_in_place_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path))
    path = put(tmp_path, "co2", CO2)
    assert datasets.folder(dataset("co2")) == path == tmp_path / "co2"
    rows = {row.entry.name: row.place for row in datasets.list_datasets(tmp_path)}
    assert rows["co2"] == path
    assert rows["electricity"] is None
    assert not list(tmp_path.glob(".making-*"))


@pytest.mark.parametrize("damage", ["change", "remove", "manifest"])
def test_damaged_files_are_refused_with_the_way_out(damage: str, tmp_path: Path):
    path = put(tmp_path, "co2", CO2)
    file = path / next(iter(CO2))
    if damage == "change":
        file.write_bytes(b"date,co2\n19580329,999.9\n")
    elif damage == "remove":
        file.unlink()
    else:
        (path / store.MANIFEST).write_text("{")
    with pytest.raises(DataError, match=r"checksum differs.*orch data prepare co2"):
        store.place(dataset("co2"), tmp_path)


def test_another_version_in_the_cache_is_refused(tmp_path: Path):
    path = put(tmp_path, "co2", CO2)
    manifest = json.loads((path / store.MANIFEST).read_text())
    (path / store.MANIFEST).write_text(json.dumps(manifest | {"version": "0.14.0"}))
    with pytest.raises(DataError, match=r"is of statsmodels 0\.14\.0, expected statsmodels 0\.15\.0"):
        store.place(dataset("co2"), tmp_path)


def test_files_of_an_installed_package_are_used_where_they_are(tmp_path: Path):
    place = store.place(dataset("digits"), tmp_path)
    assert place is not None
    assert (place / "sklearn/datasets/data/digits.csv.gz").is_file()
    assert "sklearn" not in subprocess.run(
        [sys.executable, "-c", "import sys, workloads.datasets as d; d.list_datasets(); print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip


def test_patterns_after_a_mark_are_left_out(tmp_path: Path):
    for name in ("a", "a.dat", "b.txt"):
        (tmp_path / name).touch()
    assert store.select(tmp_path, ("*", "!*.dat")) == ["a", "b.txt"]


def test_an_installed_package_with_other_files_is_not_used(tmp_path: Path):
    changed = dataclasses.replace(dataset("digits"), sha256="0" * 64)
    assert store.place(changed, tmp_path) is None


def test_the_catalogue_needs_neither_torch_nor_a_package_of_data():
    code = "import sys, workloads.datasets; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
