"""What a sweep file says about how to run, on a real cluster: a race, stop conditions, patience."""

from __future__ import annotations

from orchestrator import report
from orchestrator.lifecycle import TrialState
from tests.support.ray_cluster import PATIENCE_S, Lab
from workloads.checkpoint_files import latest, steps_in

TINY = {
    "task": {"name": "bytes_lm"},
    "model": {"d_model": 16, "n_layers": 1, "mixer": {"name": "gru"}},
    "training": {"batch_size": 4, "sequence_length": 32, "steps": 30, "eval_every": 10, "schedule": "cosine"},
}


def test_a_race_gives_no_further_seeds_to_what_it_has_told_apart(lab: Lab) -> None:
    rates = {"training.lr": [1e-2, 1e-5]}
    seeds = {"count": 5, "policy": "race", "alpha": 0.2}
    sweep = lab.submitted(2, name="race", workload=TINY, parameters=rates, seeds=seeds)
    assert lab.drive(sweep).wait(timeout=PATIENCE_S) == 0
    trials = lab.trials(sweep)
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    race = report.sweep_document(lab.store.sweeps.sweep(sweep.id), trials, 0).race
    assert race is not None
    assert [entry.params for entry in race.leaders] == [{"training.lr": 1e-2}]
    assert [(entry.params, entry.by) for entry in race.beaten] == [({"training.lr": 1e-5}, {"training.lr": 1e-2})]
    assert len(trials) < 10


def test_a_trial_that_meets_a_condition_goes_back_to_its_best_and_patience_ends_the_sweep(lab: Lab) -> None:
    sweep = lab.submitted(
        1,
        name="watched",
        parameters={"training.lr": [1e-2, 1e-6, 1e-7]},
        workload=TINY | {"training": TINY["training"] | {"steps": 60}},
        stop_if=[{"when": "lr < 5e-3 and train_loss > 0 for 2 reports", "rewind": "best"}],
        budget={"patience": 1},
    )
    assert lab.drive(sweep).wait(timeout=PATIENCE_S) == 0
    rewound, unhealthy, never = lab.trials(sweep)
    rates = dict(lab.store.trials.curve(rewound.id, "lr"))
    since = min(step for step, rate in rates.items() if rate < 5e-3)
    assert rewound.reason.startswith(f"stop_if at step {since + 10}: lr < 5e-3 and train_loss > 0 for 2 reports")
    curve = dict(lab.store.trials.curve(rewound.id, "val_bpb"))
    best = min((step for step in curve if step < since), key=lambda step: curve[step])
    assert rewound.reason.endswith(f"rewound to step {best}")
    assert rewound.score == curve[best]
    checkpoints = lab.directory(rewound) / "checkpoints"
    assert max(steps_in(checkpoints)) == best
    assert latest(checkpoints) is not None
    assert (unhealthy.state, unhealthy.score, unhealthy.step) == (TrialState.STOPPED, None, 20)
    assert (never.state, never.attempt) == (TrialState.STOPPED, 0)
    assert never.reason.startswith("not started: the last 1 trials brought nothing better")
