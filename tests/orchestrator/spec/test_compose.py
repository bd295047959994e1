"""Bases, profiles, --set and the words of other systems: merged, with every value's own place."""

from __future__ import annotations

import pytest

from orchestrator.errors import BadInput
from orchestrator.spec.compose import compose
from orchestrator.spec.document import parse_document
from orchestrator.spec.load import check_document, load_spec

BASE = """\
name: base
workload:
  model: {d_model: 32, mixer: {name: rg_lru, conv_width: 2}}
  training: {steps: 100, lr: 1e-3}
parameters:
  training.lr: [1e-3, 1e-2]
seeds: [0, 1, 2]
"""
CHILD = """\
extends: base.yaml
name: child
workload:
  model: {mixer: {name: gru}}
  training: {steps: 200}
parameters:
  training.lr: {min: 1e-4, max: 1e-2, distribution: log_uniform_values}
search: {method: random, max_trials: 6}
profiles:
  smoke:
    workload: {training: {steps: 5}}
    seeds: [0]
    run_cap: 2
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "child.yaml").write_text(CHILD)
    return tmp_path


def composed(path, **words):
    return compose(path, lambda each: each.read_text(), **words)


def test_a_file_is_laid_over_its_base(files):
    spec = check_document(composed(files / "child.yaml"))
    assert spec.name == "child"
    assert spec.seeds.numbers == [0, 1, 2]
    assert spec.workload["training"] == {"steps": 200, "lr": 1e-3}


def test_another_method_in_a_slot_and_a_parameter_replace_what_stood_there(files):
    spec = check_document(composed(files / "child.yaml"))
    assert spec.workload["model"] == {"d_model": 32, "mixer": {"name": "gru"}}
    assert spec.parameters["training.lr"].is_range


def test_values_keep_the_place_where_they_were_written(files):
    document = composed(files / "child.yaml")
    assert str(document.values["workload", "training", "steps"]) == f"{files}/child.yaml:5"
    assert str(document.values["workload", "training", "lr"]) == f"{files}/base.yaml:4"
    (files / "base.yaml").write_text(BASE.replace("d_model", "d_modell"))
    with pytest.raises(BadInput, match=r"base.yaml:3:11: unknown key 'd_modell'"):
        check_document(composed(files / "child.yaml"))


def test_a_profile_is_laid_over_the_file(files):
    spec = check_document(composed(files / "child.yaml", profile="smoke"))
    assert (spec.workload["training"]["steps"], spec.seeds.numbers, spec.search.max_trials) == (5, [0], 2)
    with pytest.raises(BadInput, match=r"no profile 'smok'[\s\S]*Did you mean 'smoke'"):
        composed(files / "child.yaml", profile="smok")


@pytest.mark.parametrize(
    ("assignment", "check"),
    [
        ("training.steps=7", lambda spec: spec.workload["training"]["steps"] == 7),
        ("model.d_model=64", lambda spec: spec.workload["model"]["d_model"] == 64),
        ("seeds=2", lambda spec: spec.seeds.numbers == [0, 1]),
        ("search.max_trials=3", lambda spec: spec.search.max_trials == 3),
        ("training.lr=[1e-3]", lambda spec: spec.parameters["training.lr"].choices == [1e-3]),
        ("name=other", lambda spec: spec.name == "other"),
    ],
)
def test_set_wins_over_everything(files, assignment, check):
    assert check(check_document(composed(files / "child.yaml", assignments=[assignment])))


def test_a_wrong_assignment_is_told_as_it_was_typed(files):
    with pytest.raises(BadInput, match=r"--set training.stepz=3:1:8: unknown key 'stepz'"):
        check_document(composed(files / "child.yaml", assignments=["training.stepz=3"]))
    with pytest.raises(BadInput, match="key=value"):
        composed(files / "child.yaml", assignments=["training.steps"])


def test_bases_in_a_circle_are_told(files):
    (files / "base.yaml").write_text("extends: child.yaml\n" + BASE)
    with pytest.raises(BadInput, match="in a circle"):
        composed(files / "child.yaml")


def test_a_file_that_extends_cannot_stand_alone():
    with pytest.raises(BadInput, match="names files beside this one"):
        load_spec(CHILD)


def test_wandb_words_are_read():
    spec = load_spec(
        "name: w\nmethod: random\nrun_cap: 4\ndescription: why\nmetric: {name: val_bpb, goal: minimize}\n"
        "parameters: {training.lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}}\n"
        "early_terminate: {type: asha, min_iter: 10, eta: 4}\n"
    )
    assert (spec.search.method, spec.search.max_trials, spec.notes) == ("random", 4, "why")
    assert (spec.early_terminate.grace_steps, spec.early_terminate.reduction_factor) == (10, 4)


def test_determined_words_are_read():
    spec = load_spec(
        "name: d\nlabels: [a]\nmax_restarts: 1\nresources: {slots_per_trial: 1, priority: 42}\n"
        "searcher: {name: adaptive_asha, metric: val_loss, smaller_is_better: true, max_trials: 8, divisor: 4}\n"
        "hyperparameters:\n  training.lr: {type: log, minval: -4, maxval: -2, base: 10}\n"
        "  training.batch_size: {type: categorical, vals: [8, 16]}\n"
        "  model.d_model: {type: int, minval: 16, maxval: 64}\n"
    )
    assert (spec.tags, spec.retries, spec.resources.gpu, spec.priority) == (["a"], 1, 1, 42)
    assert (spec.metric.name, spec.metric.goal, spec.search.max_trials) == ("val_loss", "minimize", 8)
    assert (spec.early_terminate.type, spec.early_terminate.reduction_factor) == ("asha", 4)
    lr = spec.parameters["training.lr"]
    assert (lr.kind, lr.min, lr.max) == ("log_uniform_values", pytest.approx(1e-4), pytest.approx(1e-2))
    assert spec.parameters["training.batch_size"].choices == [8, 16]
    assert spec.parameters["model.d_model"].kind == "int_uniform"


NESTED = """\
name: nested
workload: {model: {feedforward: {name: moe, num_experts: 8}}}
parameters:
  training:
    lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
    parameters: {weight_decay: {values: [0.0, 0.1]}}
  model:
    parameters:
      mixer: {name: [gru, rg_lru], conv_width: {values: [2, 4], when: "mixer.name == 'rg_lru'"}}
      feedforward.router.name: {distribution: categorical, values: [topk, switch]}
  training.steps: {distribution: constant, value: 30}
search: {method: random, max_trials: 4}
"""


def test_nested_names_are_dotted_ones():
    spec = load_spec(NESTED)
    assert list(spec.parameters) == [
        "training.lr", "training.weight_decay", "model.mixer.name", "model.mixer.conv_width",
        "model.feedforward.router.name", "training.steps",
    ]  # fmt: skip
    assert spec.parameters["model.mixer.conv_width"].when == "mixer.name == 'rg_lru'"
    assert spec.parameters["training.weight_decay"].choices == [0.0, 0.1]
    assert spec.parameters["training.steps"].choices == [30]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("{training: {lr: {valeus: [1]}}}", r"f.yaml:2:\d+: no workload has a parameter 'training.lr.valeus'"),
        ("{training: {lr: [1e-3]}, training.lr: [1e-2]}", r"f.yaml:2:25: 'training.lr' is given twice"),
        ("{training: {lr: {values: [no]}}}", r"f.yaml:2:39: training.lr = 'no'"),
        ("{training: {}}", "give exactly one of"),
    ],
)
def test_mistakes_in_nested_names_have_their_places(words, says):
    with pytest.raises(BadInput, match=says):
        load_spec(f"name: x\nparameters: {words}\n", "f.yaml")


def test_words_of_a_searcher_that_say_nothing_here_are_named():
    with pytest.raises(BadInput, match=r"f.yaml:2:26: `searcher.max_rungs` says nothing here[\s\S]*searcher.divisor"):
        load_spec("name: x\nsearcher: {name: random, max_rungs: 3, max_trials: 4}\n", "f.yaml")


def test_an_alias_beside_its_own_word_is_a_mistake():
    with pytest.raises(BadInput, match=r"`run_cap` says the same as `search.max_trials`"):
        load_spec("name: x\nrun_cap: 3\nsearch: {method: random, max_trials: 4}\n")


def test_a_schema_check_accepts_what_the_loader_accepts():
    import jsonschema

    from orchestrator.spec.schema import sweep_schema

    validator = jsonschema.Draft202012Validator(sweep_schema())
    for text in (BASE, CHILD, NESTED, "name: x\nseeds: 3\nworkload: {task: bytes_lm, model: {mixer: [gru, rg_lru]}}\n"):
        validator.validate(parse_document(text, "f").data)
    wrong = parse_document("name: x\nworkload: {model: {mixer: {name: gru, nothing: 1}}}\n", "f").data
    assert list(validator.iter_errors(wrong))
