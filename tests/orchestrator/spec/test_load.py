"""From a sweep file to a spec: what is accepted, what each mistake is told."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import BadInput
from orchestrator.spec import load_spec

GOOD = """\
name: example
workload:
  task: bytes_lm
  model: {d_model: 32, mixer: gru, feedforward: {name: moe, num_experts: 4, router: {name: topk, k: 2}}}
  training: {steps: 20, lr: 3e-3}
parameters:
  model.mixer.name: [gru, rg_lru]
  training.lr: {values: [1e-3, 1e-2]}
seeds: 2
metric: {name: val_bpb, goal: minimize}
search: {method: grid}
"""


def complaint(text: str):
    with pytest.raises(BadInput) as caught:
        load_spec(text, "f.yaml")
    return caught.value.complaints[0]


def complaints_about(text: str):
    try:
        load_spec(text, "f.yaml")
    except BadInput as error:
        return error.complaints or ["a refusal must give a reason"]
    return []


def test_a_good_file_loads():
    spec = load_spec(GOOD)
    assert spec.seeds.numbers == [0, 1]
    assert spec.parameters["model.mixer.name"].choices == ["gru", "rg_lru"]
    assert spec.parameters["training.lr"].choices == [1e-3, 1e-2]


def test_the_metric_defaults_to_the_tasks_own():
    spec = load_spec("name: x\n")
    assert (spec.metric.name, spec.metric.goal) == ("val_bpb", "minimize")


@pytest.mark.parametrize(
    ("change", "line", "says", "hint"),
    [
        (("workload:", "worklaod:"), 2, "unknown key 'worklaod'", "Did you mean 'workload'"),
        (("d_model:", "d_modell:"), 4, "unknown key 'd_modell'", "Did you mean 'd_model'"),
        (("k: 2", "kk: 2"), 4, "unknown key 'kk'", "Did you mean 'k'"),
        (("lr: 3e-3", "steps_: 3"), 5, "unknown key 'steps_'", "Did you mean 'steps'"),
        (("steps: 20", "steps: many"), 5, "got 'many'", ""),
        (("steps: 20", "steps: 0"), 5, "greater than or equal to 1, got 0", ""),
        (("task: bytes_lm", "task: byte_lm"), 3, "'byte_lm' is not a known name", "Did you mean 'bytes_lm'"),
        (("mixer: gru", "mixer: grru"), 4, "'grru' is not a known name", "Did you mean 'gru'"),
        (("[gru, rg_lru]", "[gru, rg_lruu]"), 7, "'rg_lruu' is not a known name", "Did you mean 'rg_lru'"),
        (("model.mixer.name", "model.mixxer.name"), 7, "no workload has a parameter", "model.mixer.name"),
        (("training.lr:", "training.lrr:"), 8, "no workload has a parameter", "Did you mean 'training.lr'"),
        (("1e-2]", "-1]"), 8, "training.lr = -1", ""),
        (("name: val_bpb", "name: val_bbp"), 10, "never reports a metric 'val_bbp'", "Did you mean 'val_bpb'"),
        (("method: grid", "method: gird"), 11, "'gird'", ""),
        (("k: 2", "k: 5"), 4, "router.k (5) is more than num_experts (4)", ""),
        (("seeds: 2", "seeds: [1, 1]"), 9, "a seed twice", ""),
        (("{values: [1e-3, 1e-2]}", "{min: 1e-3, max: 1e-2}"), 1, "a grid needs `values`", ""),
        (("{values: [1e-3, 1e-2]}", "{min: 1}"), 8, "needs `min` and `max`", ""),
        (("{values: [1e-3, 1e-2]}", "{min: 2, max: 1}"), 8, "must be less than `max`", ""),
        (("{values: [1e-3, 1e-2]}", "{values: [1, 2], probabilities: [0.5]}"), 8, "`probabilities`", ""),
        (("name: example", "name: bad name"), 1, "'bad name'", ""),
    ],
)
def test_every_mistake_is_told_with_its_place_and_a_way_out(change, line, says, hint):
    assert change[0] in GOOD
    found = complaint(GOOD.replace(*change))
    assert (found.file, found.line) == ("f.yaml", line)
    assert says in found.message
    assert hint in found.hint


def test_all_problems_are_told_at_once():
    with pytest.raises(BadInput) as caught:
        load_spec(GOOD.replace("d_model", "d_modell").replace("steps: 20", "steps: x"), "f.yaml")
    assert len(caught.value.complaints) == 2


def test_an_option_of_one_variant_alone_is_accepted():
    text = GOOD + "early_terminate: {type: asha}\n"
    assert load_spec(text.replace("training.lr: {values: [1e-3, 1e-2]}", "model.mixer.conv_width: [2, 4]"))


PIECES = st.sampled_from(
    [
        "name: x",
        "\t",
        "{",
        "}",
        "[",
        "- ",
        ": ",
        "&a ",
        "*a",
        "!!python/object:x ",
        "1e400",
        "null",
        "\n  ",
        "\x00",
        "'",
    ]
)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_files_end_in_a_spec_or_in_complaints(data):
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + data.draw(PIECES | st.text(max_size=4)) + text[stop:]
    found = complaints_about(text)
    assert all(each.file == "f.yaml" for each in found)


def test_entries_of_a_list_search_are_checked_one_by_one():
    text = "name: x\nsearch:\n  method: list\n  configs:\n    - {training.lr: 1e-3}\n    - {training.lrr: 1e-3}\n"
    found = complaint(text)
    assert (found.line, found.column) == (6, 8)
    assert "training.lr" in found.hint


def test_a_spec_reads_its_own_record():
    spec = load_spec(GOOD + "early_terminate: {type: asha}\nzip: [[model.mixer.name, training.lr]]\n")
    assert type(spec).model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize("row", ["  training.p{}: {{vals: [1]}}", "  training.p{}: [1]", "    p{}: [1]"])
@pytest.mark.parametrize(("count", "says"), [(300, "parameter 'training.p0'"), (2000, "at most 500 parameters")])
def test_thousands_of_parameters_are_refused_at_once(row, count, says):
    """Looked for among all the others, each for itself, those of a file of 30 KB took minutes."""
    head = "name: x\nparameters:\n" + ("  training:\n" if row.startswith("    ") else "")
    text = head + "\n".join(row.format(n) for n in range(count))
    with pytest.raises(BadInput, match=says) as caught:
        load_spec(text)
    assert len(caught.value.complaints) <= 50
