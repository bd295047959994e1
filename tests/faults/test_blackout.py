"""Ray's API says nothing for five minutes, while its cluster works on: its dashboard's processes stand still."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from orchestrator.lifecycle import TRIAL_ENDS, SweepState, TrialState
from tests.faults.chaos import command_of, listening_on
from tests.faults.test_service import ended_once_as_undisturbed, of_ray, record, submitted
from tests.journey.conftest import Shell
from tests.support.ray_cluster import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
SILENT_S = 300.0
SHORT, ENDLESS, EVERY = 400, 100_000_000, 200


@contextmanager
def silent(shell: Shell) -> Iterator[None]:
    """Without the dashboard, and the processes of its parts, there is neither a Jobs API nor a state API."""
    port = int(shell.running["ray_dashboard_url"].rpartition(":")[2])
    [dashboard] = [each for each in of_ray(shell) if port in listening_on(each)]
    stopped = [dashboard, *dashboard.children(recursive=True)]
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)


def at_work(shell: Shell) -> set[psutil.Process]:
    """Drivers and what trains; equal only to the same processes, not to others with their numbers."""
    return {each for each in of_ray(shell) if any(word in command_of(each) for word in (" drive ", "RayTrainWorker"))}


def test_five_minutes_without_rays_api(shell: Shell, tmp_path: Path) -> None:
    one = ("--set", "resources.max_concurrent=1")
    endless = submitted(shell, tmp_path, "endless", ENDLESS, *one, every=EVERY)["sweep_id"]
    with record(shell) as store:

        def steps(sweep_id: int) -> int:
            return sum(trial.step for trial in store.trials.trials(sweep_id))

        def state(sweep_id: int) -> SweepState:
            return store.sweeps.sweep(sweep_id).state

        wait_for(lambda: steps(endless), "a report")
        ends = submitted(shell, tmp_path, "ends", SHORT, *one)
        of_ends = ends["sweep_id"]
        wait_for(lambda: steps(of_ends), "a report of the other sweep")
        before = at_work(shell)
        with silent(shell):
            until = time.monotonic() + SILENT_S
            with pytest.raises(httpx.TimeoutException):
                httpx.get(f"{shell.running['ray_dashboard_url']}/api/version", timeout=5)
            while time.monotonic() < until:
                seen = steps(endless)
                wait_for(lambda seen=seen: steps(endless) > seen, "a report")
                time.sleep(5)
            # What ended meanwhile is in SQL; whether its driver has, too, is not known
            wait_for(lambda: all(each.state in TRIAL_ENDS for each in store.trials.trials(of_ends)), "all trials' ends")
            assert [state(sweep_id) for sweep_id in (of_ends, endless)] == [SweepState.RUNNING] * 2
            assert at_work(shell) <= before, "something was started"
            shell.orch("cancel", "endless")
            time.sleep(5)
            assert state(endless) is SweepState.RUNNING, "nobody can carry it out"
        wait_for(lambda: state(endless) is SweepState.CANCELLED, "the cancel")
        wait_for(lambda: state(of_ends) is SweepState.SUCCEEDED, "the other's end")
        wait_for(lambda: not at_work(shell), "the end of all drivers")
        ended_once_as_undisturbed(shell, ends)
        for sweep_id in (of_ends, endless):
            sweep = store.sweeps.sweep(sweep_id)
            assert (sweep.attempt, sweep.losses) == (1, 0)
        for trial in store.trials.trials(endless):
            assert (trial.state, trial.failures) == (TrialState.CANCELLED, 0)
            assert trial.attempt <= 1
            curve = [step for step, _ in store.trials.curve(trial.id, "val_bpb")]
            assert curve == list(range(EVERY, trial.step + 1, EVERY))
