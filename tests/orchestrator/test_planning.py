"""Plans: how many trials, which, and always the same."""

import random

import pytest

from orchestrator.errors import BadInput
from orchestrator.planning import make_plan
from orchestrator.spec import load_spec
from orchestrator.spec.model import Parameter
from orchestrator.spec.space import value_at

MODEL = "workload: {model: {feedforward: {name: moe, num_experts: 4, router: {name: topk, k: 2}}}}\n"


def plan(text: str):
    return make_plan(load_spec("name: x\n" + text))


def test_a_grid_is_every_combination_with_every_seed_seeds_innermost():
    found = plan("parameters: {training.lr: [1e-3, 1e-2], model.d_model: [16, 32]}\nseeds: [5, 6]\n")
    assert found.configurations == 4
    assert [trial.seed for trial in found.trials] == [5, 6] * 4
    assert [trial.number for trial in found.trials] == list(range(8))
    assert dict(found.trials[2].params) == {"training.lr": 1e-3, "model.d_model": 32}
    assert found.trials[2].config["model"]["d_model"] == 32


def test_seeds_of_a_configuration_share_its_hash_and_others_do_not():
    found = plan("parameters: {training.lr: [1e-3, 1e-2]}\nseeds: 2\n")
    hashes = [trial.config_hash for trial in found.trials]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_configs_are_complete_and_without_seed():
    trial = plan(MODEL).trials[0]
    assert trial.config["training"]["weight_decay"] == 0.1
    assert "seed" not in trial.config


def test_a_swept_name_takes_the_new_methods_defaults_and_drops_foreign_options():
    text = "workload: {model: {mixer: {name: rg_lru, conv_width: 2}}}\nparameters: {model.mixer.name: [rg_lru, gru]}\n"
    with_conv, without = plan(text).trials
    assert with_conv.config["model"]["mixer"]["conv_width"] == 2
    assert without.config["model"]["mixer"]["name"] == "gru"
    assert "conv_width" not in without.config["model"]["mixer"]


def test_a_parameter_of_another_method_does_not_multiply_trials():
    text = "parameters: {model.mixer.name: [gru, rg_lru], model.mixer.conv_width: [2, 4]}\n"
    found = plan(text)
    assert found.configurations == 3
    assert found.skipped == 1
    assert found.warnings
    gru = next(trial for trial in found.trials if trial.params["model.mixer.name"] == "gru")
    assert "model.mixer.conv_width" not in gru.params


def test_whole_sections_can_be_swept():
    moe = "{name: moe, num_experts: 2, router: {name: topk, k: 1}}"
    text = f"parameters:\n  model.feedforward:\n    values: [dense, {moe}]\n"
    dense, moe = plan(text).trials
    assert dense.params["model.feedforward"] == "dense"
    assert moe.config["model"]["feedforward"]["num_experts"] == 2


def test_patterns_are_reached_by_index():
    text = "workload: {model: {mixer: [gru, rg_lru]}}\nparameters: {model.mixer.1.conv_width: [2, 8]}\n"
    assert [trial.config["model"]["mixer"][1]["conv_width"] for trial in plan(text).trials] == [2, 8]


def test_an_option_below_a_default_section_is_reached():
    text = "workload: {model: {feedforward: {name: moe}}}\nparameters: {model.feedforward.router.k: [1, 2]}\n"
    assert [trial.config["model"]["feedforward"]["router"]["k"] for trial in plan(text).trials] == [1, 2]


RANDOM = (
    "parameters: {training.lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}}\n"
    "seeds: [0, 1]\nsearch: {method: random, max_trials: %d}\n"
)


def test_random_draws_are_a_function_of_the_file_and_a_longer_search_begins_with_the_shorter():
    short, long = plan(RANDOM % 4), plan(RANDOM % 9)
    assert short == plan(RANDOM % 4)
    assert len(short.trials) == 4
    assert len(long.trials) == 8
    assert long.trials[:4] == short.trials


def test_an_exhausted_finite_space_ends_the_search():
    found = plan("parameters: {training.lr: [1e-3, 1e-2]}\nsearch: {method: random, max_trials: 50}\n")
    assert len(found.trials) == 2


def test_a_group_of_seeds_is_never_split():
    with pytest.raises(BadInput, match="less than the 2 seeds"):
        plan(RANDOM % 1)


def test_a_combination_that_no_model_can_have_names_the_cell():
    text = MODEL + "parameters: {model.feedforward.num_experts: [2, 4], model.feedforward.router.k: [2, 4]}\n"
    with pytest.raises(BadInput, match=r"num_experts = 2, model.feedforward.router.k = 4.*is more than num_experts"):
        plan(text)


def test_a_boundless_grid_is_refused():
    values = "[" + ", ".join(map(str, range(1, 400))) + "]"
    with pytest.raises(BadInput, match="at most 100,000"):
        plan(f"parameters: {{training.steps: {values}, training.batch_size: {values}}}\n")


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        ({"min": 1, "max": 3}, lambda v: v in (1, 2, 3)),
        ({"min": 1.0, "max": 3.0}, lambda v: 1 <= v <= 3),
        ({"min": 1e-4, "max": 1.0, "distribution": "log_uniform_values"}, lambda v: 1e-4 <= v <= 1.0),
        ({"min": 1, "max": 64, "distribution": "int_log_uniform"}, lambda v: isinstance(v, int) and 1 <= v <= 64),
        ({"min": 0, "max": 1, "q": 0.25, "distribution": "q_uniform"}, lambda v: v in (0, 0.25, 0.5, 0.75, 1)),
        ({"mu": 0, "sigma": 1}, lambda v: -6 < v < 6),
        ({"mu": 0, "sigma": 5, "q": 2, "distribution": "q_normal"}, lambda v: v % 2 == 0),
    ],
)
def test_draws_keep_their_range(words, holds):
    parameter = Parameter(**words)
    rng = random.Random(0)
    drawn = [value_at(parameter, rng.random()) for _ in range(200)]
    assert all(map(holds, drawn))
    assert len(set(drawn)) > 1


def test_probabilities_weigh_a_random_search():
    text = "parameters: {training.lr: {values: [1e-3, 1e-2], probabilities: [0.0, 1.0]}}\n"
    found = plan(text + "search: {method: random, max_trials: 5}\n")
    assert [trial.params["training.lr"] for trial in found.trials] == [1e-2]


def test_conditions_expressions_zips_and_constraints_resolve_to_the_table_written_by_hand():
    text = """\
workload: {model: {mixer: gru, feedforward: {name: moe, num_experts: 4, router: {name: topk}}}}
parameters:
  model.mixer.name: [gru, rg_lru]
  model.mixer.conv_width: {values: [2, 4], when: "mixer.name == 'rg_lru'"}
  model.d_model: [16, 32]
  training.lr: [1e-2, 1e-3]
  model.feedforward.router.k: [1, 2, 4]
  model.feedforward.expert_hidden: {expr: "d_model * 2 // k"}
zip: [[model.d_model, training.lr]]
constraints: ["k < num_experts", "not (d_model == 32 and k == 2)"]
"""
    found = plan(text)
    rows = [
        (
            trial.params["model.mixer.name"],
            trial.params.get("model.mixer.conv_width"),
            trial.params["model.d_model"],
            trial.params["training.lr"],
            trial.params["model.feedforward.router.k"],
            trial.config["model"]["feedforward"]["expert_hidden"],
        )
        for trial in found.trials
    ]
    assert rows == [
        ("gru", None, 16, 1e-2, 1, 32),
        ("gru", None, 16, 1e-2, 2, 16),
        ("gru", None, 32, 1e-3, 1, 64),
        ("rg_lru", 2, 16, 1e-2, 1, 32),
        ("rg_lru", 2, 16, 1e-2, 2, 16),
        ("rg_lru", 2, 32, 1e-3, 1, 64),
        ("rg_lru", 4, 16, 1e-2, 1, 32),
        ("rg_lru", 4, 16, 1e-2, 2, 16),
        ("rg_lru", 4, 32, 1e-3, 1, 64),
    ]
    assert found.constrained == 12


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("{training.lr: {expr: nowhere * 2}}", "reads 'nowhere'"),
        ("{training.lr: {expr: batch_size * 1.0}, training.batch_size: {expr: lr * 2}}", "in a circle"),
        ("{training.lr: {expr: 1 / (batch_size - 16)}}", "has no value"),
    ],
)
def test_expressions_without_a_value_are_told(words, says):
    with pytest.raises(BadInput, match=says):
        plan(f"parameters: {words}\n")


def test_constraints_that_leave_nothing_are_told():
    with pytest.raises(BadInput, match="no trial is left"):
        plan('parameters: {training.lr: [1e-3]}\nconstraints: ["lr > 1"]\n')


def test_sobol_fills_the_space_more_evenly_than_chance():
    words = "parameters: {training.lr: {min: 1e-9, max: 1.0}}\nsearch: {method: %s, max_trials: 32}\n"

    def widest_gap(method: str) -> float:
        values = sorted(trial.params["training.lr"] for trial in plan(words % method).trials)
        return max(b - a for a, b in zip([0.0, *values], [*values, 1.0], strict=True))

    assert widest_gap("sobol") < 2 / 32 < widest_gap("random")


def test_a_list_is_tried_in_its_order():
    found = plan(
        "search: {method: list, configs: [{training.lr: 1e-2}, {model.mixer.name: rg_lru, training.lr: 1e-3}]}\n"
    )
    assert [dict(trial.params) for trial in found.trials] == [
        {"training.lr": 1e-2},
        {"model.mixer.name": "rg_lru", "training.lr": 1e-3},
    ]


def test_a_race_plans_three_seeds_each_and_counts_all_of_them_in_max_trials():
    text = "parameters: {training.lr: [1e-3, 1e-2, 1e-1]}\nseeds: {count: 5, policy: race}\n"
    found = plan(text)
    assert [trial.seed for trial in found.trials] == [0, 1, 2] * 3
    assert plan(text + "search: {method: random, max_trials: 10}\n").configurations == 2


def test_conditions_on_what_no_trial_reports_are_told():
    text = "stop_if: [nan(train/loss), moe/dead_frac > 0.25 for 3 reports, grad_norm > 9]\n"
    (told,) = plan(text).warnings
    assert "'train/loss'" in told
    assert "Did you mean 'train_loss'" in told
