"""What ranks with what."""

from pathlib import Path

from orchestrator.board import leaderboard
from orchestrator.cli import render
from orchestrator.lifecycle import TrialState
from orchestrator.store import Store, open_store
from tests.support.builders import NOW, a_report, a_sweep, a_trial


def a_record_of(home: Path, *results: tuple[str, int, float, int | None]) -> Store:
    """Ended trials. results: configuration, seed, val_bpb, data checksum."""
    store = open_store(f"sqlite:///{home / 'orch.db'}")
    planned = [
        a_trial(n, config_hash=config, seed=seed, params={"config": config})
        for n, (config, seed, _, _) in enumerate(results)
    ]
    sweep = store.sweeps.add_sweep(a_sweep(), planned, now=NOW)
    for trial, (_, _, value, data) in zip(store.trials.trials(sweep.id), results, strict=True):
        store.trials.start_trial(trial.id, now=NOW)
        checksum = {} if data is None else {"data_checksum": float(data)}
        store.trials.record([a_report(trial.id, 1, val_bpb=value, **checksum)])
        store.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    return store


def test_trials_on_other_data_have_ranks_of_their_own(tmp_path: Path) -> None:
    store = a_record_of(tmp_path, ("a", 0, 3.0, 0xABC), ("b", 0, 2.0, 0xABC), ("c", 0, 1.0, 2**48 - 1))
    board = leaderboard(store.sweeps, store.board)
    found = [(row.params["config"], row.rank, row.data_checksum) for row in board.rows]
    assert found == [("b", 1, "000000000abc"), ("a", 2, "000000000abc"), ("c", 1, "ffffffffffff")]
    assert all("data_checksum" not in row.metrics for row in board.rows)


def test_seeds_on_other_data_are_not_averaged(tmp_path: Path) -> None:
    store = a_record_of(tmp_path, ("a", 0, 3.0, 1), ("a", 1, 4.0, 1), ("a", 2, 100.0, 2))
    rows = leaderboard(store.sweeps, store.board).rows
    assert [(row.metrics["val_bpb"].mean, row.metrics["val_bpb"].n) for row in rows] == [(3.5, 2), (100.0, 1)]


def test_a_table_over_several_data_sets_says_so(tmp_path: Path) -> None:
    with render.out.capture() as seen:
        for results in ((("a", 0, 3.0, 1), ("b", 0, 2.0, 1)), (("a", 0, 3.0, 1), ("b", 0, 2.0, 2))):
            home = tmp_path / str(results[1][3])
            home.mkdir()
            store = a_record_of(home, *results)
            render.out.print(render.leaderboard(leaderboard(store.sweeps, store.board)))
    one, _, two = seen.get().partition("2 data sets: ranks begin anew with each")
    assert two
    assert one.count("DATA") == 1
