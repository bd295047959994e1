"""An MLflow server answers with errors for a while: something is done to the SQLite file of its database."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

HEADER_BYTES = 100


@contextmanager
def unreadable_rows(database: Path) -> Iterator[None]:
    """Steps that are no numbers: MLflow's code fails as it compares them, and it answers 500."""
    _change(database, "UPDATE latest_metrics SET step = 'damaged'")
    try:
        yield
    finally:
        newest = "SELECT max(step) FROM metrics WHERE run_uuid = latest.run_uuid AND key = latest.key"
        _change(database, f"UPDATE latest_metrics AS latest SET step = ({newest}) WHERE typeof(step) = 'text'")


@contextmanager
def table_gone(database: Path) -> Iterator[None]:
    """MLflow's database tells of an error that may pass, and it answers 503."""
    _change(database, "ALTER TABLE metrics RENAME TO metrics_away")
    try:
        yield
    finally:
        _change(database, "ALTER TABLE metrics_away RENAME TO metrics")


@contextmanager
def no_database(database: Path) -> Iterator[None]:
    """What the file begins with is that of no database: MLflow says that the request was bad, 400."""
    with database.open("r+b", buffering=0) as file:
        with closing(sqlite3.connect(database, isolation_level=None, timeout=60)) as other:
            other.execute("BEGIN IMMEDIATE")  # nobody is about to write there
            header = file.read(HEADER_BYTES)
            os.pwrite(file.fileno(), b"damaged".ljust(HEADER_BYTES), 0)
        try:
            yield
        finally:
            os.pwrite(file.fileno(), header, 0)


def _change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database, timeout=60)) as other, other:
        other.execute(statement)
