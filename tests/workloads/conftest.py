"""A cache of small data sets for every test of workloads, so that none depends on what a machine has prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import tiny_data
from workloads.datasets.store import CACHE_VARIABLE


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("data")
    tiny_data.put_all(cache)
    return cache


@pytest.fixture(autouse=True)
def _small_data(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tiny_cache))
