"""What the README shows is true: its sweep files load, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.planning import make_plan
from orchestrator.spec.compose import compose
from orchestrator.spec.load import check_document
from tests.surface.test_surface import COMMANDS
from workloads import list_mixers, list_routers

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FILES = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("text", FILES, ids=lambda text: re.search(r"name: (\S+)", text)[1])
@pytest.mark.parametrize("profile", [None, "smoke"])
def test_sweep_files_of_the_readme_load(text, profile, tmp_path):
    (tmp_path / "base.yaml").write_text("name: base\n")
    (tmp_path / "sweep.yaml").write_text(text)
    if profile and "profiles:" not in text:
        profile = None
    assert check_document(compose(tmp_path / "sweep.yaml", lambda path: path.read_text(), profile=profile)).name


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_sweep_opens_with_its_question_and_plans_in_every_profile(path):
    text = path.read_text()
    assert text.startswith("# ")
    assert "?" in text.partition("\n")[0]
    profiles = re.findall(r"^  (\w+):", text.partition("\nprofiles:\n")[2], flags=re.MULTILINE)
    assert "smoke" in profiles
    for profile in (None, *profiles):
        plan = make_plan(check_document(compose(path, lambda each: each.read_text(), profile=profile)))
        assert plan.trials
        assert [warning for warning in plan.warnings if not warning.startswith("one seed")] == []


def test_the_routing_comparison_runs_every_router_and_its_table_has_a_line_for_each():
    sweep = compose(ROOT / "sweeps/routing_comparison.yaml", lambda path: path.read_text())
    plan = make_plan(check_document(sweep))
    layers = [trial.config["model"]["feedforward"] for trial in plan.trials]
    compared = {layer["router"]["name"] if layer["name"] == "moe" else layer["name"] for layer in layers}
    assert compared == {*list_routers(), "dense", "dense_matched"}
    table = re.findall(r"\d+ \| `(\w+)` \| \*\*", README.partition("**Routing**")[2].partition("**Bach")[0])
    assert sorted(table) == sorted(compared)


def test_every_command_is_in_the_readme():
    missing = [name for name in COMMANDS if f"orch {name}" not in README]
    assert missing == []


def test_the_comparison_of_mixers_leaves_out_only_those_that_are_others_evaluated_differently():
    document = check_document(compose(ROOT / "sweeps" / "rnn_comparison.yaml", lambda each: each.read_text()))
    compared = {value for value in document.parameters["model.mixer"].values if isinstance(value, str)}
    assert set(list_mixers()) - compared == {"deer_gru", "deer_lstm"}
