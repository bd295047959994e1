"""The sections that say how a sweep runs: what they accept, in both vocabularies, and what each mistake is told."""

import jsonschema
import pytest

from orchestrator.errors import BadInput
from orchestrator.spec import load_spec
from orchestrator.spec.document import parse_document
from orchestrator.spec.schema import sweep_schema
from orchestrator.spec.words import bytes_of, seconds_of

FULL = """\
name: full
project: routing
tags: [moe]
seeds: {count: 5, first: 2, policy: race, alpha: 0.1}
metric: {name: val_bpb, goal: minimize, aggregate: mean_last_k, k: 3}
stop_if:
  - moe/dead_frac > 0.25 for 3 reports
  - {when: nan(train_loss), rewind: best}
budget: {max_trials: 40, max_concurrent: 4, gpu_hours: 40, cpu_hours: 100, wall_clock: 1d12h, patience: 10}
resources: {workers: 2, cpu: 2, gpu: 1, memory: 16GB, pool: big, accelerator: A100, labels: {zone: "in(a, b)"}}
max_restarts: 3
log_policies:
  - {pattern: CUDA out of memory, action: cancel_retries}
  - {pattern: uncorrectable ECC, action: exclude_node}
depends_on: [pretraining, 7]
start_from: best of pretraining
hypothesis: {claim: a z-loss lowers val_bpb, metric: val_bpb, comparison: z_loss < none, alpha: 0.01}
"""


def complaint(line: str):
    with pytest.raises(BadInput) as caught:
        load_spec(f"name: x\n{line}\n", "f.yaml")
    return caught.value.complaints[0]


def test_every_section_is_read():
    spec = load_spec(FULL)
    assert (spec.seeds.numbers, spec.seeds.planned, spec.seeds.alpha) == ([2, 3, 4, 5, 6], [2, 3, 4], 0.1)
    assert (spec.metric.aggregate, spec.metric.k) == ("mean_last_k", 3)
    assert [(rule.when, rule.rewind) for rule in spec.stop_if] == [
        ("moe/dead_frac > 0.25 for 3 reports", None),
        ("nan(train_loss)", "best"),
    ]
    assert (spec.search.max_trials, spec.resources.max_concurrent, spec.retries) == (40, 4, 3)
    assert (spec.budget.gpu_hours, spec.budget.wall_clock_s, spec.budget.patience) == (40, 36 * 3600, 10)
    assert (spec.resources.memory_bytes, spec.resources.pool) == (16_000_000_000, "big")
    assert [policy.action for policy in spec.log_policies] == ["no_retry", "exclude_node"]
    assert (spec.depends_on, spec.start_from) == (["pretraining", "7"], "best of pretraining")
    assert spec.hypothesis.alpha == 0.01


def test_a_full_spec_reads_its_own_record():
    spec = load_spec(FULL)
    assert type(spec).model_validate(spec.model_dump(mode="json")) == spec


def test_the_published_schema_accepts_the_same_and_both_vocabularies():
    validator = jsonschema.Draft202012Validator(sweep_schema())
    for text in (
        FULL,
        "name: x\nseeds: [1, 2]\nstop_if: nan(train_loss)\ndepends_on: 3\nrun_cap: 4\n",
        "name: x\nsearcher: {name: random, metric: val_bpb, smaller_is_better: true, max_trials: 3}\n",
    ):
        load_spec(text)
        validator.validate(parse_document(text, "f").data)
    assert list(validator.iter_errors({"name": "x", "budget": {"gpu_ours": 1}}))
    budget = sweep_schema()["$defs"]["Budget"]["properties"]
    assert budget["max_trials"]["description"] == "Same as `search.max_trials`."


@pytest.mark.parametrize(
    ("line", "column", "says", "hint"),
    [
        ("seeds: {count: 0}", 16, "greater than or equal to 1", ""),
        ("seeds: {cuont: 3}", 9, "unknown key 'cuont'", "Did you mean 'count'"),
        ("seeds: {count: 3, values: [1]}", 8, "one of them", ""),
        ("seeds: {count: 1, policy: race}", 8, "two seeds or more", ""),
        ("seeds: {count: 3, policy: rase}", 27, "'all' or 'race', got 'rase'", ""),
        ("stop_if: [train_loss > 9, val_loss >]", 27, "'val_loss >' is no expression", ""),
        ("stop_if: [{wen: a > 1, when: b > 1}]", 12, "unknown key 'wen'", "Did you mean 'when'"),
        ("budget: {wall_clock: 24}", 22, "24 has no unit; write it as 24s, 24m or 24h", ""),
        ("budget: {wall_clock: soon}", 22, "'soon' is no duration", ""),
        ("budget: {gpu_ours: 2}", 10, "unknown key 'gpu_ours'", "Did you mean 'gpu_hours'"),
        ("resources: {memory: lots}", 21, "'lots' is no size", ""),
        ("resources: {accelerator: A100}", 12, "a kind of GPU, but `gpu` is 0", ""),
        ('log_policies: [{pattern: "(", action: no_retry}]', 26, "no regular expression", ""),
        ("log_policies: [{pattern: x, action: retry}]", 37, "'no_retry' or 'exclude_node', got 'retry'", ""),
        ("start_from: a", 13, "not of the form `best of SWEEP`", ""),
        ("hypothesis: {comparison: a < b}", 13, "'claim' is missing", ""),
        ("metric: {name: val_bpb, aggregate: mean}", 36, "'last', 'best' or 'mean_last_k', got 'mean'", ""),
        ("parameters: {training.lr: {mix: 1, max: 2}}", 28, "unknown key 'mix'", "Did you mean 'min'"),
    ],
)
def test_every_mistake_is_told_with_its_place_and_a_way_out(line, column, says, hint):
    found = complaint(line)
    assert (found.file, found.line, found.column) == ("f.yaml", 2, column)
    assert says in found.message
    assert hint in found.hint


def test_a_race_of_configurations_that_are_not_known_beforehand_is_refused():
    found = complaint("seeds: {count: 3, policy: race}\nsearch: {method: tpe, max_trials: 9}")
    assert "known beforehand" in found.message


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("1d12h", 129_600), ("1.5h", 5400)]
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("16GB", 16 * 10**9), ("512MiB", 512 * 2**20), ("1.5g", 1_500_000_000), (1000, 1000)]
)
def test_sizes(text, size):
    assert bytes_of(text) == size
