"""The migrations make the schema that the code expects, up and down, with rows in it, however many start at once."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from orchestrator.errors import OrchError
from orchestrator.lifecycle import TrialState
from orchestrator.store import open_store
from orchestrator.store.database import Database
from orchestrator.store.migrate import MIGRATIONS, downgrade, upgrade
from orchestrator.store.schema import metadata
from tests.contracts import racers
from tests.support.builders import NOW, a_report, a_sweep, some_trials
from tests.support.crew import SIZE, Crew
from tests.support.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.database() as url:
            yield url


def shape(url: str) -> dict[str, Any]:
    """Everything that a database says about its tables, but for Alembic's own."""
    database = Database(url)
    try:
        inspector = sa.inspect(database.engine)
        return {table: table_shape(inspector, table) for table in tables(url)}
    finally:
        database.close()


def table_shape(inspector: sa.Inspector, table: str) -> dict[str, Any]:
    columns = inspector.get_columns(table)
    return {
        "columns": [(c["name"], str(c["type"]), c["nullable"], str(c["default"])[:7]) for c in columns],
        "primary key": inspector.get_pk_constraint(table),
        "foreign keys": sorted(inspector.get_foreign_keys(table), key=lambda key: str(key["name"])),
        "unique": sorted(inspector.get_unique_constraints(table), key=lambda key: str(key["name"])),
        "checks": sorted(inspector.get_check_constraints(table), key=lambda key: str(key["name"])),
        "indexes": sorted(
            (
                # A condition comes as an object of its own each time
                {**index, "dialect_options": {k: str(v) for k, v in index.get("dialect_options", {}).items()}}
                for index in inspector.get_indexes(table)
            ),
            key=lambda key: str(key["name"]),
        ),
    }


def tables(url: str) -> list[str]:
    database = Database(url)
    try:
        return sorted(set(sa.inspect(database.engine).get_table_names()) - {"alembic_version"})
    finally:
        database.close()


def sqlite_statements(path: Path) -> list[list[str]]:
    """The CREATE statements, in which SQLite keeps what an inspector does not tell: AUTOINCREMENT, WITHOUT ROWID.

    Each as its lines, sorted, for constraints may come in any order; without quotes, which renaming a table adds.
    """
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    finally:
        connection.close()
    return sorted(
        sorted(line.strip().rstrip(",").replace('"', "") for line in sql.splitlines())
        for (sql,) in found
        if "alembic_version" not in sql
    )


def test_migrations_make_what_schema_py_says(empty_url: str) -> None:
    upgrade(empty_url)
    migrated = shape(empty_url)
    downgrade(empty_url, "base")
    assert tables(empty_url) == []
    database = Database(empty_url)
    metadata.create_all(database.engine)
    database.close()
    assert migrated == shape(empty_url)
    assert sorted(migrated) == sorted(metadata.tables)


def test_migrations_make_the_same_sqlite_tables_to_the_letter(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path}/migrated.db")
    database = Database(f"sqlite:///{tmp_path}/created.db")
    metadata.create_all(database.engine)
    database.close()
    assert sqlite_statements(tmp_path / "migrated.db") == sqlite_statements(tmp_path / "created.db")


def test_every_revision_goes_up_and_down_and_up_again(empty_url: str) -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    revisions = [revision.revision for revision in script.walk_revisions()]
    upgrade(empty_url)
    newest = shape(empty_url)
    for revision in [*revisions[1:], "base"]:
        downgrade(empty_url, revision)
        upgrade(empty_url)
        assert shape(empty_url) == newest


def test_an_upgrade_keeps_the_rows(empty_url: str) -> None:
    store = open_store(empty_url)
    sweep = store.sweeps.add_sweep(a_sweep(), some_trials(2), now=NOW)
    trial = store.trials.start_trial(store.trials.trials(sweep.id)[0].id, now=NOW)
    store.trials.record([a_report(trial.id, 1)])
    store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    before = (store.sweeps.sweeps(), store.trials.trials(sweep.id), store.sweeps.events(), store.outbox.pending())
    store.close()

    again = open_store(empty_url)
    assert before == (
        again.sweeps.sweeps(),
        again.trials.trials(sweep.id),
        again.sweeps.events(),
        again.outbox.pending(),
    )
    again.close()


def test_rows_survive_the_way_down_to_every_released_schema_and_up_again(empty_url: str) -> None:
    store = open_store(empty_url)
    sweep = store.sweeps.add_sweep(a_sweep(), some_trials(2), now=NOW)
    trial = store.trials.start_trial(store.trials.trials(sweep.id)[0].id, now=NOW)
    store.trials.record([a_report(trial.id, 1)])
    store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    for revision in [each.revision for each in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]:
        before = (store.sweeps.sweeps(), store.trials.trials(sweep.id), store.sweeps.events(), store.outbox.pending())
        store.close()
        downgrade(empty_url, revision)
        store = open_store(empty_url)
        after = (store.sweeps.sweeps(), store.trials.trials(sweep.id), store.sweeps.events(), store.outbox.pending())
        assert before == after, f"through {revision}"
    store.close()


def test_results_keep_standing_through_the_revision_that_gives_them_to_projects(empty_url: str) -> None:
    store = open_store(empty_url)
    trials = []
    for project in ("p", "q"):
        sweep = store.sweeps.add_sweep(a_sweep(project=project), some_trials(1), now=NOW)
        trials.append(store.trials.start_trial(store.trials.trials(sweep.id)[0].id, now=NOW))
        store.trials.record([a_report(trials[-1].id, 1)], facts={trials[-1].id: {"identity": "same"}})
        store.trials.end_trial(trials[-1].id, TrialState.SUCCEEDED, reason="", now=NOW)
    hashes = [trial.config_hash for trial in trials]
    assert [store.trials.results(hashes, project=name) for name in "pq"] == [{"same": each.id} for each in trials]
    store.close()
    downgrade(empty_url, "0008")
    store = open_store(empty_url)
    assert [store.trials.results(hashes, project=name) for name in "pq"] == [{}, {"same": trials[1].id}]
    store.close()


def test_the_way_down_leaves_out_events_of_no_sweep_and_gives_no_number_twice(empty_url: str) -> None:
    store = open_store(empty_url)
    store.sweeps.add_sweep(a_sweep(), some_trials(1), now=NOW)
    kept = store.sweeps.events()
    store.nodes.drain("a", name="n1", user="ada", now=NOW)
    [drained] = store.sweeps.events_of_no_sweep()
    store.close()
    downgrade(empty_url, "0009")
    store = open_store(empty_url)
    assert store.sweeps.events() == kept
    store.nodes.undrain("a", name="n1", user="ada", now=NOW)
    [back] = store.sweeps.events_of_no_sweep()
    assert back.id > drained.id
    store.close()


def test_a_downgrade_with_rows_leaves_no_table(empty_url: str) -> None:
    store = open_store(empty_url)
    sweep = store.sweeps.add_sweep(a_sweep(), some_trials(2), now=NOW)
    store.trials.record([a_report(store.trials.trials(sweep.id)[0].id, 1)])
    store.close()
    downgrade(empty_url, "base")
    assert tables(empty_url) == []


def test_processes_that_open_a_new_database_together_all_succeed(empty_url: str, crew: Crew) -> None:
    for opening in crew.start(racers.open_and_close, *[(empty_url,)] * SIZE):
        opening.result()
    assert tables(empty_url) == sorted(metadata.tables)


def test_who_comes_in_mid_upgrade_waits_for_its_end(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, go_on = Event(), Event()

    def hold(_: sa.Connection) -> None:
        made.set()
        assert go_on.wait(timeout=60)

    monkeypatch.setattr("orchestrator.store.migrate._check_references", hold)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(upgrade, empty_url)
        assert made.wait(timeout=60)
        second = pool.submit(upgrade, empty_url)
        assert not wait([second], timeout=0.3).done
        go_on.set()
        first.result(timeout=60)
        second.result(timeout=60)
    assert tables(empty_url) == sorted(metadata.tables)


def test_a_database_of_a_newer_orch_is_refused_and_left_alone(empty_url: str) -> None:
    upgrade(empty_url)
    database = Database(empty_url)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    before = shape(empty_url)
    with pytest.raises(OrchError, match=r"schema 9999, which this orch does not know .* install the newer orch"):
        open_store(empty_url)
    database.close()
    assert shape(empty_url) == before


def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            upgrade(empty_url)
    assert tables(empty_url) == []
    upgrade(empty_url)
    assert tables(empty_url) == sorted(metadata.tables)
