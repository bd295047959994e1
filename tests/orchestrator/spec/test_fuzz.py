"""Whatever a sweep file holds, it becomes a spec, or complaints with the file's name: never a traceback or a hang."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.errors import BadInput
from orchestrator.spec.compose import compose
from orchestrator.spec.load import check_document, load_spec
from orchestrator.spec.model import SweepSpec

ROOT = Path(__file__).parents[3]
VALID = [path.read_text() for path in sorted((ROOT / "sweeps").glob("*.yaml"))]
VALID += re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
VALID += [
    """\
name: others
hyperparameters:
  training: {lr: {type: log, minval: -4, maxval: -2, base: 10}, batch_size: {type: categorical, vals: [8, 16]}}
  model: {parameters: {mixer: {name: {distribution: categorical, values: [gru, rg_lru]}}}}
  training.weight_decay: {distribution: log_uniform, min: -4, max: -2}
searcher: {name: adaptive_asha, metric: val_bpb, smaller_is_better: true, max_trials: 8, divisor: 4, max_time: 2h}
resources: {slots_per_trial: 0, max_slots: 2, priority: 42}
max_restarts: 1
reproducibility: {experiment_seed: 3}
"""
]
TOKENS = [
    "1e999", "-1", "0", ".nan", "-.inf", "null", "true", "[]", "{}", "[1, 2", "{a: b", "*x", "&x 1", "<<: {}", "---",
    "!!python/object:os.system {}", "!!binary x", "\t", "\0", "é", "\uffff", "'", '"', "|", "- a", "? b", "9" * 40,
    "1e-4", "0x10", "# c", ":", "expr: 1/0", "when: x", "-0.0", "1e308", "5e-324", "1" * 5000, "[" * 50,
    "{values: []}", "{min: 2, max: 1}", "{mu: 0, sigma: 0}", "{values: [1], probabilities: [2]}", "{expr: 9 ** 9}",
]  # fmt: skip
PLACES = ("training.lr", "seeds", "a.b.c", "parameters.x", "name", "model", "model.mixer.name", "search", "workload")


def mutated(rng: random.Random) -> str:
    """A valid file with one to four things broken: lines dropped, doubled, swapped, indented; text cut in or off."""
    text = rng.choice(VALID)
    for _ in range(rng.randint(1, 4)):
        lines = text.split("\n")
        here, there = rng.randrange(len(lines)), rng.randrange(len(lines))
        start = rng.randrange(len(text) + 1)
        match rng.randrange(8):
            case 0:
                del lines[here]
            case 1:
                lines.insert(here, lines[there])
            case 2:
                lines[here], lines[there] = lines[there], lines[here]
            case 3:
                lines[here] = rng.choice([" ", "  ", "\t", "        "]) + lines[here].lstrip()
            case 4:
                lines = [text[:start], rng.choice(TOKENS), text[start + rng.randint(0, 12) :]]
                lines = ["".join(lines)]
            case 5:
                lines = [text[:start] + chr(rng.choice([0, 9, 10, 27, 58, 91, 0x85, 0x2028, 0xFEFF])) + text[start:]]
            case 6:
                words = re.findall(r"[\w.]+", text) or ["x"]
                lines = [text.replace(rng.choice(words), rng.choice([*TOKENS, *words]), 1)]
            case 7:
                lines = [text[:start]]
        text = "\n".join(lines)
    return text


def judged(text: str, rng: random.Random) -> SweepSpec | BadInput:
    """By either door: as the coordinator reads it, or as the command line merges it."""
    try:
        if rng.random() < 0.5:
            return load_spec(text, "f.yaml")

        def read(path: Path) -> str:
            if path.name not in ("f.yaml", "base.yaml"):
                raise BadInput(f"{path}: there is no such file")
            return text if path.name == "f.yaml" else rng.choice(VALID)

        words = [rng.choice(PLACES) + rng.choice(["=", ""]) + rng.choice(TOKENS) for _ in range(rng.randint(0, 2))]
        profile = rng.choice([None, "smoke", "other"])
        return check_document(compose(Path("f.yaml"), read, profile=profile, assignments=words))
    except BadInput as error:
        return error


@settings(max_examples=4500, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_broken_files_end_in_a_spec_or_in_complaints(seed):
    rng = random.Random(seed)
    found = judged(mutated(rng), rng)
    if isinstance(found, BadInput):
        assert found.complaints
        assert all(complaint.message for complaint in found.complaints)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB.encode(), "once aliases are written out"),
        (b"name: x\nname: y\n", "a second time"),
        (b"name: x\n\tseeds: 1\n", "Indent with spaces"),
        (b"name: x\nseeds: " + b"9" * 400, "digits"),
        (b"name: x\nparameters: {training.lr: [.nan]}\n", "not a usable number"),
        ("name: x\n".encode("utf-16"), "not UTF-8"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"name: " + b"[" * 100_000, "nested deeper"),
        (b"name: " + b"{a: " * 3000, "nested deeper"),
        (b"name: x\nnotes: " + b"y" * 10_000_000, "bytes"),
        (b"name: !!python/object/apply:os.system ['true']\n", "the tag"),
        (b"- a\n- b\n", "this is a list"),
        (b"word\n", "this is a single value"),
        (b"", "empty"),
        (b"name: x\nprofiles: {smoke: 3}\n", "is no mapping"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_command_line_answers_with_one_message_and_exit_code_2(content, says, tmp_path, monkeypatch):
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    file = tmp_path / "sweep.yaml"
    file.write_bytes(content)
    words = ["--profile", "smoke"] if b"profiles" in content else []
    for command in ("validate", "submit"):
        answer = CliRunner().invoke(app, [command, str(file), *words])
        assert answer.exit_code == 2, answer.output
        assert says in answer.output
        assert answer.output.startswith(f"error: {file}")
        assert "Traceback" not in answer.output
    assert not (tmp_path / "home").exists()


def test_problems_are_told_together_each_with_its_place_a_caret_and_the_nearest_name():
    text = (ROOT / "sweeps" / "quickstart.yaml").read_text()
    wrong = text.replace("d_model: 64", "d_modell: 64").replace("batch_size: 16", "batch_size: many")
    with pytest.raises(BadInput) as caught:
        load_spec(wrong.replace("n_layers: 2", "n_layer: 2"), "f.yaml")
    told = str(caught.value)
    assert len(caught.value.complaints) >= 3
    for place in (f"f.yaml:{1 + wrong[: wrong.index(word)].count(chr(10))}:" for word in ("d_modell", "many")):
        assert place in told
    assert "Did you mean 'd_model'" in told
    assert re.search(r"\n +\^", told)
