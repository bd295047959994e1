"""Connections: files and their rights, URLs, servers that are away, locks that are held."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from orchestrator.errors import BadInput, Unreachable
from orchestrator.store import Store, database, open_store
from orchestrator.store.database import Database
from tests.support.builders import NOW, a_sweep


def test_the_file_is_its_owners_alone_and_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "orch.db"
    store = open_store(f"sqlite:///{path}")
    store.sweeps.add_sweep(a_sweep(), [], now=NOW)
    rights = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
    store.close()
    assert rights == dict.fromkeys(rights, "0o600")
    assert "orch.db-wal" in rights


def test_a_path_with_every_odd_character_works(tmp_path: Path) -> None:
    path = tmp_path / "100% a b#c" / "orch.db"
    open_store(f"sqlite:///{path}").close()
    assert path.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("orch.db", "write sqlite:///PATH or postgresql://"),
        ("mysql://localhost/orch", "SQLite or PostgreSQL"),
        ("sqlite://", "must be a file"),
    ],
)
def test_a_url_that_is_none_says_what_one_looks_like(url: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        open_store(url)


def test_a_server_that_is_away_is_unreachable_and_its_password_stays_secret() -> None:
    with pytest.raises(
        Unreachable, match=r"postgresql\+psycopg://orch:\*\*\*@127.0.0.1:1/orch does not answer"
    ) as error:
        open_store("postgresql://orch:secret@127.0.0.1:1/orch")
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to have a header of its own" * 20)
    with pytest.raises(Unreachable, match="file is not a database"):
        open_store(f"sqlite:///{tmp_path}/notes.txt")


def test_a_writer_waits_for_another_tool_that_holds_the_lock(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(store.sweeps.add_sweep, a_sweep(), [], now=NOW)
        assert not wait([adding], timeout=0.3).done
        assert store.sweeps.sweeps() == [], "readers do not wait"
        other.execute("COMMIT")
        assert adding.result(timeout=30).id == 1
    other.close()
    store.close()


def test_a_lock_that_is_never_given_back_is_unreachable(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_S", 0.05)
    store = open_store(sqlite_url)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unreachable, match="database is locked"):
        store.sweeps.add_sweep(a_sweep(), [], now=NOW)
    other.close()
    store.close()


def test_connections_that_the_server_cut_are_replaced(postgres_url: str) -> None:
    store = open_store(postgres_url)
    store.sweeps.add_sweep(a_sweep(), [], now=NOW)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        cut = admin.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert cut is not None
    assert cut[0] >= 1
    assert len(store.sweeps.sweeps()) == 1
    store.close()


def test_a_mistake_of_ours_is_not_taken_for_an_outage(database_url: str) -> None:
    opened = Database(database_url)
    with pytest.raises(sa.exc.DBAPIError), opened.read() as connection:
        connection.exec_driver_sql("SELECT nothing FROM nowhere")
    opened.close()


def test_the_database_itself_refuses_states_that_do_not_exist(store: Store) -> None:
    store.sweeps.add_sweep(a_sweep(), [], now=NOW)
    with pytest.raises(sa.exc.IntegrityError), store.database.write() as connection:
        connection.exec_driver_sql("UPDATE sweep SET state = 'sleeping'")
    with pytest.raises(sa.exc.IntegrityError), store.database.write() as connection:
        connection.exec_driver_sql("UPDATE sweep SET project_id = 99")


def test_times_without_a_zone_are_refused(store: Store) -> None:
    with pytest.raises(sa.exc.StatementError, match="must have a time zone"):
        store.sweeps.add_sweep(a_sweep(), [], now=NOW.replace(tzinfo=None))
