"""A backup is one moment of the record, whole or not there at all, and any database takes it back."""

from __future__ import annotations

import gzip
import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.errors import BadInput, OrchError
from orchestrator.lifecycle import TrialState
from orchestrator.settings import Settings
from orchestrator.store import Store, open_store
from orchestrator.store.backup import backup, restore, verify
from orchestrator.store.database import Database
from orchestrator.store.migrate import MIGRATIONS, downgrade, upgrade
from tests.support.builders import NOW, a_report, a_sweep, some_trials

REVISIONS = sorted(revision.revision for revision in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def fill(store: Store, sweeps: int = 2) -> None:
    for number in range(sweeps):
        sweep = store.sweeps.add_sweep(a_sweep(name=f"\U0001f9ea {number}"), some_trials(3), now=NOW)
        for trial in store.trials.trials(sweep.id)[:2]:
            store.trials.start_trial(trial.id, now=NOW)
            store.trials.record([a_report(trial.id, step, val_bpb=1 / (step + 3)) for step in range(5)])
            store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    store.outbox.sent([item.id for item in store.outbox.pending()][:3])


def content(url: str) -> dict[str, Any]:
    """Every row of every table, and what the next numbers would be."""
    database = Database(url)
    metadata = sa.MetaData()
    try:
        with database.read() as connection:
            metadata.reflect(connection)
            return {
                table.name: sorted(
                    tuple(getattr(value, "isoformat", lambda value=value: value)() for value in row)
                    for row in connection.execute(sa.select(table))
                )
                for table in metadata.sorted_tables
                if table.name != "lease"
            }
    finally:
        database.close()


@pytest.fixture
def other_url(request, database_url, tmp_path) -> str:
    """An empty database of the other kind."""
    if database_url.startswith("sqlite"):
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/other/orch.db"


def everything(store: Store) -> tuple[Any, ...]:
    sweeps = store.sweeps.sweeps()
    trials = [store.trials.trials(sweep.id) for sweep in sweeps]
    curves = [store.trials.curve(trial.id, "val_bpb") for each in trials for trial in each]
    return sweeps, trials, curves, store.sweeps.events(), store.outbox.pending()


def test_it_comes_back_the_same_in_either_kind_of_database(store, database_url, other_url, tmp_path):
    fill(store)
    file = tmp_path / "b"
    copied = backup(database_url, file, now=NOW)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (copied.rows["trial"], copied.rows["metric_point"]) == (6, 20)
    assert verify(file) == copied
    assert restore(other_url, file) == copied
    found = open_store(other_url)
    assert everything(found) == everything(store)
    outbox = store.outbox.pending()[-1].id
    for each in (store, found):
        fill(each, 1)
    assert everything(found) == everything(store), "numbers go on where they were"
    assert found.outbox.pending()[-1].id > outbox
    found.close()


def test_it_is_one_moment_while_others_write_and_they_do_not_wait(store, database_url, tmp_path, monkeypatch):
    fill(store, 1)
    before = verify_rows(database_url, tmp_path / "before")
    began, go_on = threading.Event(), threading.Event()
    tables = "orchestrator.store.backup._last_id"
    asked = []

    def ask(connection, table):
        asked.append(table.name)
        if len(asked) == 2:
            began.set()
            assert go_on.wait(timeout=60)

    monkeypatch.setattr(tables, ask)
    thread = threading.Thread(target=backup, args=(database_url, tmp_path / "during"), kwargs={"now": NOW})
    thread.start()
    assert began.wait(timeout=60)
    fill(store, 2)
    go_on.set()
    thread.join()
    assert verify(tmp_path / "during").rows == before


def verify_rows(url: str, file: Path) -> dict[str, int]:
    return dict(backup(url, file, now=NOW).rows)


def test_nothing_is_overwritten(store, database_url, tmp_path):
    fill(store, 1)
    file = tmp_path / "b"
    backup(database_url, file, now=NOW)
    before = file.read_bytes()
    with pytest.raises(BadInput, match="exists already"):
        backup(database_url, file, now=NOW)
    assert file.read_bytes() == before
    rows = content(database_url)
    with pytest.raises(BadInput, match=r"holds rows already .* into an empty one"):
        restore(database_url, file)
    assert content(database_url) == rows
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "other"])
def test_a_damaged_file_is_told_and_changes_nothing(sqlite_url, tmp_path, damage):
    store = open_store(sqlite_url)
    fill(store, 1)
    store.close()
    file = tmp_path / "b"
    backup(sqlite_url, file, now=NOW)
    data = file.read_bytes()
    if damage == "cut":
        file.write_bytes(data[:-100])
    elif damage == "flip":
        file.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    elif damage == "swap":
        file.write_bytes(gzip.compress(gzip.decompress(data).replace(b"routing", b"roating")))
    else:
        file.write_text(json.dumps({"a": 1}))
    target = f"sqlite:///{tmp_path}/target.db"
    with pytest.raises(BadInput, match="is damaged, or is no backup"):
        restore(target, file)
    assert not (tmp_path / "target.db").exists()


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_backup_of_every_released_schema_comes_back_under_the_newest(tmp_path, revision):
    """With rows in it: those of today, taken down to that schema."""
    url = f"sqlite:///{tmp_path}/old.db"
    store = open_store(url)
    fill(store)
    names = sorted((sweep.id, sweep.name) for sweep in store.sweeps.sweeps())
    store.close()
    downgrade(url, revision)
    backup(url, tmp_path / "b", now=NOW)
    upgrade(url)
    target = f"sqlite:///{tmp_path}/target.db"
    restore(target, tmp_path / "b")
    assert content(target) == content(url)
    restored = open_store(target)
    assert sorted((sweep.id, sweep.name) for sweep in restored.sweeps.sweeps()) == names
    restored.close()


def test_a_backup_of_a_newer_orch_is_refused(sqlite_url, tmp_path):
    store = open_store(sqlite_url)
    fill(store, 1)
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    store.close()
    backup(sqlite_url, tmp_path / "b", now=NOW)
    with pytest.raises(OrchError, match="install the newer orch"):
        restore(f"sqlite:///{tmp_path}/target.db", tmp_path / "b")


@pytest.mark.parametrize("directories", [True, False])
def test_no_number_that_storage_has_a_directory_of_is_given_again(
    store, database_url, other_url, tmp_path, monkeypatch, directories
):
    fill(store, 1)
    backup(database_url, tmp_path / "b", now=NOW)
    lost = store.sweeps.add_sweep(a_sweep(name="lost"), some_trials(2), now=NOW)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "lab"))
    monkeypatch.setenv("ORCH_DATABASE_URL", other_url)
    settings = Settings.from_env()
    if directories:
        for trial in store.trials.trials(lost.id):
            settings.trial_directory(lost.id, trial.id).mkdir(parents=True)
        (settings.storage / "sweeps" / "lost+found" / "trials" / "x-900").mkdir(parents=True)
        (settings.storage / "sweeps" / ("9" * 30)).mkdir()
    result = CliRunner().invoke(app, ["restore", str(tmp_path / "b")])
    assert result.exit_code == 0, result.output
    found = open_store(other_url)
    new = found.sweeps.add_sweep(a_sweep(name="new"), some_trials(2), now=NOW)
    ids = [trial.id for trial in found.trials.trials(new.id)]
    assert (new.id, ids) == ((3, [6, 7]) if directories else (2, [4, 5]))
    found.close()


def test_numbers_are_passed_over_behind_the_migrations_of_an_old_backup(tmp_path):
    url, target = f"sqlite:///{tmp_path}/old.db", f"sqlite:///{tmp_path}/target.db"
    store = open_store(url)
    fill(store)
    store.close()
    downgrade(url, REVISIONS[0])
    backup(url, tmp_path / "b", now=NOW)
    restore(target, tmp_path / "b", taken={"sweep": 40, "trial": 2})
    found = open_store(target)
    new = found.sweeps.add_sweep(a_sweep(name="new"), some_trials(1), now=NOW)
    assert (new.id, found.trials.trials(new.id)[0].id) == (41, 7), "a number below the last one changes nothing"
    found.close()


def test_a_coordinator_that_acts_keeps_its_lease_through_a_restore(store, database_url, other_url, tmp_path):
    fill(store, 1)
    backup(database_url, tmp_path / "b", now=NOW)
    target = open_store(other_url)
    held = target.lease.take(target.lease.see(), "busy", now=NOW)
    restore(other_url, tmp_path / "b")
    assert held is not None
    assert target.lease.see() == held
    target.close()
