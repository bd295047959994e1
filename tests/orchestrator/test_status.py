"""`orch status SWEEP`: a sentence for the sweep, and one for each trial that has no result."""

from rich.console import Console

from orchestrator.cli import render
from orchestrator.control import cancel_trial
from orchestrator.coordinator import Coordinator
from orchestrator.lifecycle import TrialState
from orchestrator.report import sweep_document
from orchestrator.store import open_store
from orchestrator.submit import submit
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

TEXT = "name: {}\nparameters: {{training.lr: [1e-3, 1e-2, 3e-2]}}\n"


def test_what_waits_and_what_was_stopped_is_explained(tmp_path):
    store, launcher, clock = open_store(f"sqlite:///{tmp_path}/orch.db"), FakeLauncher(cpus=1), FakeClock()
    means = {"user": "ada", "store": store.sweeps, "trials": store.trials, "launcher": launcher, "clock": clock}
    first, second = (submit(TEXT.format(name), "f.yaml", **means).sweep for name in ("first", "second"))
    coordinator = Coordinator(store.sweeps, store.ledger, launcher, clock)
    for _ in range(4):
        coordinator.tick()
        clock.advance(seconds=5)

    def told(sweep_id: int) -> list[str]:
        document = sweep_document(store.sweeps.sweep(sweep_id), store.trials.trials(sweep_id), 0, [])
        return _lines(render.reasons(document))

    assert told(second.id)[1:] == [
        "sweep 2 queued waits for 1 CPU; 0 of 1 CPUs are free; ahead of it: first",
        *(f"trial t{n} pending waits with its sweep" for n in (4, 5, 6)),
    ]
    one, two, _ = store.trials.trials(first.id)
    store.trials.start_trial(one.id, now=clock.now())
    store.trials.end_trial(one.id, TrialState.FAILED, reason="ValueError: no", now=clock.now())
    cancel_trial(two.id, user="ada", trials=store.trials, clock=clock)
    assert told(first.id)[2:] == [
        "trial t1 failed ValueError: no",
        "trial t2 cancelled cancelled by ada",
        "trial t3 pending waits for one of the sweep's 1 slots",
    ]
    store.close()


def _lines(table: object) -> list[str]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return [" ".join(line.split()) for line in capture.get().splitlines()]
