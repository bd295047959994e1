"""Tables and lines for people. Programs read `--format json`, which prints the documents themselves."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator import health, report

FRONT = "*"
# A file or a pipe has no width of its own: tables stay whole there.
out = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)
err = Console(stderr=True, highlight=False)

COLOURS = {
    "queued": "yellow",
    "starting": "yellow",
    "pending": "dim",
    "running": "cyan",
    "paused": "yellow",
    "succeeded": "green",
    "stopped": "green",
    "failed": "red",
    "cancelled": "magenta",
}


def say(text: str) -> None:
    """A line on standard output, not wrapped: addresses and commands stay whole."""
    out.print(text, soft_wrap=True)


def note(text: str) -> None:
    """A line on standard error, not wrapped."""
    err.print(text, soft_wrap=True)


def print_json(document: BaseModel | Sequence[BaseModel]) -> None:
    """A document as indented JSON on standard output."""
    if isinstance(document, BaseModel):
        text = document.model_dump_json(indent=2)
    else:
        text = json.dumps([each.model_dump(mode="json") for each in document], indent=2)
    print(text)  # noqa: T201  rich would wrap and colour it


def number(value: float | None, digits: int = 4) -> str:
    """A metric's value; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}g}"


def state(name: str) -> Text:
    """A coloured state."""
    return Text(name, style=COLOURS.get(name, ""))


def sweeps(found: Sequence[report.SweepSummary]) -> Table:
    """`orch list`."""
    table = Table(box=None, pad_edge=False)
    for heading in ("SWEEP", "NAME", "PROJECT", "STATE", "TRIALS", "CREATED", "REASON"):
        table.add_column(heading, justify="right" if heading == "SWEEP" else "left")
    for each in found:
        table.add_row(
            str(each.sweep_id), each.name, each.project, state(each.state), counts(each.trial_states),
            each.created_at[:19].replace("T", " "), each.reason,
        )  # fmt: skip
    return table


def events(found: Sequence[report.EventDocument]) -> Table:
    """`orch events`."""
    table = Table(box=None, pad_edge=False)
    for heading in ("WHEN", "WHO", "TRIAL", "WHAT", "WHY"):
        table.add_column(heading, justify="right" if heading == "TRIAL" else "left", overflow="fold")
    for each in found:
        table.add_row(
            each.at[:19].replace("T", " "), each.actor, "" if each.trial_id is None else str(each.trial_id),
            each.what, each.reason,
        )  # fmt: skip
    return table


def nodes(found: Sequence[report.NodeDocument]) -> Table:
    """`orch nodes`."""
    table = Table(box=None, pad_edge=False)
    for heading in ("NODE", "ID", "ADDRESS", "CPUS", "GPUS", "LABELS", ""):
        table.add_column(heading, justify="right" if heading in ("CPUS", "GPUS") else "left")
    for each in found:
        labels = ", ".join(f"{name}={value}" for name, value in each.labels.items())
        gpus = f"{each.gpus:g}" + (f" {', '.join(each.accelerators)}" if each.accelerators else "")
        table.add_row(
            each.name, each.node_id[:12], each.address, f"{each.cpus:g}", gpus, labels,
            "drained" if each.drained else "",
        )  # fmt: skip
    return table


def reasons(document: report.SweepDocument) -> Table:
    """`orch status SWEEP`: why it is where it is, and why each trial is that has no result."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "STATE", "WHY"):
        table.add_column(heading, no_wrap=heading != "WHY", overflow="fold")
    where = f"{document.reason or counts(document.trial_states)}"
    table.add_row(f"sweep {document.sweep_id}", state(document.state), where)
    for trial in document.trials:
        waits = f"waits for one of the sweep's {document.slots} slots" if document.slots else "waits with its sweep"
        why = trial.reason or (waits if trial.state == "pending" else "")
        if why:
            table.add_row(f"trial t{trial.trial_id}", state(trial.state), why)
    return table


def counts(states: dict[str, int]) -> str:
    """`3 succeeded, 1 running`."""
    order = list(COLOURS)
    return ", ".join(f"{states[name]} {name}" for name in sorted(states, key=order.index) if states[name]) or "none"


def sweep(document: report.SweepDocument) -> RenderableType:
    """One sweep with its trials: `orch show` and each frame of `orch watch`."""
    head = Text.assemble(
        (f"sweep {document.sweep_id} ", "bold"),
        f"{document.name}  ",
        state(document.state),
        f"  {counts(document.trial_states)}",
        f"\n{document.reason}" if document.reason else "",
        f"\n{_claim(document.hypothesis)}" if document.hypothesis else "",
        f"\n{_race(document.race)}" if document.race and document.race.leaders else "",
    )
    return Group(head, trials(document))


def _race(race: report.RaceDocument) -> str:
    leaders = [" ".join(f"{name}={cell(value)}" for name, value in each.params.items()) for each in race.leaders]
    told = f"race{' so far' if race.open else ''}: "
    if not race.tie:
        return f"{told}{leaders[0]} is better than the others (alpha {race.alpha:g})"
    return f"{told}a tie of {len(leaders)}, {len(race.beaten)} are worse (alpha {race.alpha:g}): {'; '.join(leaders)}"


def _claim(hypothesis: report.HypothesisDocument) -> str:
    compared = f" ({hypothesis.comparison or 'as told'}, by {hypothesis.metric}, alpha {hypothesis.alpha:g})"
    seal = f"sealed {hypothesis.sealed_at[:19]} as {hypothesis.sha256[:12]}"
    broken = "" if hypothesis.intact else ": BROKEN, name or spec were changed since"
    return f"claim: {hypothesis.claim}{compared}, {seal}{broken}"


def trials(document: report.SweepDocument) -> Table:
    """The trials of a sweep."""
    names = sorted({name for trial in document.trials for name in trial.params})
    table = Table(box=None, pad_edge=False)
    table.add_column("TRIAL", justify="right")
    table.add_column("STATE", no_wrap=True)
    for name in names:
        table.add_column(short_name(name, names), overflow="fold")
    others = list(document.goals)[1:]
    for heading in ("SEED", "STEP", document.metric.upper(), "BEST", *(name.upper() for name in others)):
        table.add_column(heading, justify="right", no_wrap=True)
    if others:
        table.add_column("PARETO", justify="center")
    ailing = any(trial.alarms for trial in document.trials)
    descends = any(trial.parent_trial_id is not None for trial in document.trials)
    if descends:
        table.add_column("FROM", no_wrap=True)
    if ailing:
        table.add_column("HEALTH", no_wrap=True)
    table.add_column("REASON", no_wrap=True, overflow="ellipsis")
    for trial in document.trials:
        table.add_row(
            str(trial.trial_id),
            state(trial.state).append(", shared" if trial.shared_from is not None else ""),
            *(cell(trial.params.get(name)) for name in names),
            str(trial.seed),
            f"{trial.step}/{trial.steps}",
            number(trial.score),
            number(trial.best),
            *(number(trial.metrics.get(name)) for name in others),
            *([FRONT if trial.pareto else ""] if others else []),
            *([lineage(trial)] if descends else []),
            *([ailments(trial.alarms)] if ailing else []),
            trial.reason.partition(": ")[0] if trial.state == "stopped" else trial.reason,
        )
    return table


def perturbed(change: report.PerturbationDocument) -> str:
    """`from trial 7 at step 40: lr 0.003 -> 0.0036`."""
    told = ", ".join(f"{name} {cell(before)} -> {cell(after)}" for name, (before, after) in change.changed.items())
    return f"from trial {change.parent_trial_id} at step {change.parent_step}" + (f": {told}" if told else "")


def ailments(alarms: dict[str, int]) -> Text:
    """`expert_dead in 2 layers`."""
    return Text(", ".join(f"{kind} in {health.layers(n)}" for kind, n in alarms.items()), style="red")


def planned(document: report.PlanDocument) -> str:
    """How many trials, of what, and what ranks them."""
    further = f", and up to {document.proposed} more as results come in" if document.proposed else ""
    return (
        f"{document.trials} trials: {document.configurations} configurations × {len(document.seeds)} seeds{further}; "
        f"ranked by {document.metric} ({document.goal})"
    )


def plan(document: report.PlanDocument) -> RenderableType:
    """`orch plan`."""
    axes = Table(box=None, pad_edge=False, title="axes", title_justify="left")
    axes.add_column("PARAMETER")
    axes.add_column("VALUES", overflow="fold")
    for name, values in document.axes.items():
        axes.add_row(name, values)
    names = sorted({name for trial in document.first for name in trial.params})
    rows = Table(box=None, pad_edge=False, title=f"first of {document.trials} trials", title_justify="left")
    for heading in ("NUMBER", *(short_name(name, names) for name in names), "SEED"):
        rows.add_column(heading)
    for each in document.first:
        rows.add_row(str(each.number), *(cell(each.params.get(name)) for name in names), str(each.seed))
    head = Text(f"{document.name}: {planned(document)}")
    notes = [Text(f"note: {warning}", style="yellow") for warning in document.warnings]
    return Group(head, Text(), axes, Text(), rows, *costs(document), *notes)


def costs(document: report.PlanDocument) -> list[RenderableType]:
    """Sizes, hours, and what early stopping would have done."""
    if not document.sizes:
        return []
    sizes = Table(box=None, pad_edge=False, title="smallest and largest", title_justify="left")
    for heading in ("NUMBER", "PARAMETERS", "ACTIVE", "FLOPS A TOKEN", "MEMORY"):
        sizes.add_column(heading, justify="right")
    for each in document.sizes:
        memory = f"{each.memory_bytes / 1e6:,.0f} MB"
        sizes.add_row(
            str(each.number), grouped(each.params_count), grouped(each.active_params),
            number(each.train_flops_per_token), memory,
        )  # fmt: skip
    found: list[RenderableType] = [Text(), sizes]
    if document.estimate is not None:
        gpu = f"{document.estimate.gpu_hours:.3g} GPU-hours, " if document.estimate.gpu_hours else ""
        found += [Text(), Text(f"{gpu}{document.estimate.cpu_hours:.3g} CPU-hours: {document.estimate.basis}")]
    if document.replay is not None:
        found.append(Text(document.replay.text))
    if document.shared:
        found.append(Text(f"{document.shared} trials have a result already and will not run"))
    return found


def origins(rows: Sequence[tuple[str, str, str]]) -> Table:
    """Where each value of a merged file came from."""
    table = Table(box=None, pad_edge=False, title="\nvalues and where they stand", title_justify="left")
    for heading in ("NAME", "VALUE", "FROM"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def trial(document: report.TrialDocument) -> RenderableType:
    """`orch show` of one trial."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    rows: dict[str, Any] = {
        "trial": document.trial_id, "sweep": document.sweep_id, "state": state(document.state),
        "reason": document.reason, "seed": document.seed, "attempts": document.attempts,
        "step": f"{document.step}/{document.steps}", "health": ailments(document.alarms),
        "parameters": grouped(document.params_count),
        "active parameters": grouped(document.active_params), "FLOPs a token": number(document.flops_per_token),
        "checkpoint": document.checkpoint_path, "MLflow run": document.mlflow_run_id,
        "shared from": trial_word(document.shared_from), "starts from": lineage(document),
        "children": ", ".join(f"t{child}" for child in document.children),
        "identity": document.identity and document.identity[:16],
        "on the Pareto front": {True: "yes", False: "no", None: None}[document.pareto],
        **{f"perturbed at {each.step}": perturbed(each) for each in document.perturbations},
        **document.params, **{name: number(value, 6) for name, value in document.metrics.items()},
    }  # fmt: skip
    for name, value in rows.items():
        if value is not None and str(value):
            table.add_row(name, value if isinstance(value, Text) else cell(value))
    return table


def trial_word(trial_id: int | None) -> str | None:
    """t17: as `orch show` takes it."""
    return None if trial_id is None else f"t{trial_id}"


def lineage(document: report.TrialDocument) -> str | None:
    """t3@200: trial and step of the checkpoint that it starts from."""
    if document.parent_trial_id is None:
        return None
    return f"t{document.parent_trial_id}@{document.parent_step}"


def leaderboard(board: report.Leaderboard) -> RenderableType:
    """`orch leaderboard`."""
    if not board.rows:
        return Text("no trial has ended with a result yet; `orch list` shows what is queued")
    names = sorted({name for row in board.rows for name in row.params})
    metric = board.metric or ""
    table = Table(box=None, pad_edge=False, title=f"{board.project}: {metric}, {board.goal}", title_justify="left")
    table.add_column("RANK", justify="right")
    for name in names:
        table.add_column(short_name(name, names))
    others = list(board.goals)[1:]
    for heading in (metric.upper(), "95% INTERVAL", "SEEDS", *(name.upper() for name in others)):
        table.add_column(heading, justify="right")
    if others:
        table.add_column("PARETO", justify="center")
    table.add_column("TRIALS")
    data = list(dict.fromkeys(row.data_checksum for row in board.rows))
    if len(data) > 1:
        table.add_column("DATA")
    for row in board.rows:
        found = row.metrics[metric]
        interval = "–" if found.low is None else f"{number(found.low)} … {number(found.high)}"
        ids = ", ".join(map(str, row.trial_ids[:6])) + (" …" if len(row.trial_ids) > 6 else "")
        rank = f"{row.rank}{'=' if row.tied else ''}"
        table.add_row(
            rank, *(cell(row.params.get(name)) for name in names), number(found.mean), interval,
            str(found.n),
            *(number(row.metrics[name].mean) if name in row.metrics else "–" for name in others),
            *([FRONT if row.pareto else ""] if others else []), ids,
            *([row.data_checksum or "unknown"] if len(data) > 1 else []),
        )  # fmt: skip
    notes = [Text(baselines(board), style="dim")] if baselines(board) else []
    if any(row.tied for row in board.rows):
        notes.append(Text("= a tie: the race could not tell them apart"))
    if len(data) > 1:
        notes.append(Text(f"{len(data)} data sets: ranks begin anew with each, and compare within it", style="yellow"))
    return Group(table, *notes)


def baselines(board: report.Leaderboard) -> str:
    """What a trivial predictor reaches on the best row's task, as its trials reported it."""
    found = {
        name.removeprefix("baseline/"): value.mean
        for name, value in board.rows[0].metrics.items()
        if name.startswith("baseline/")
    }
    return "baselines: " + ", ".join(f"{name} {number(value)}" for name, value in found.items()) if found else ""


def leaderboard_csv(board: report.Leaderboard) -> str:
    """The leaderboard as comma-separated values, every metric with its interval."""
    params = sorted({name for row in board.rows for name in row.params})
    metrics = sorted({name for row in board.rows for name in row.metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "low", "high", "n")
    values_of = [f"{name}.{part}" for name in metrics for part in parts]
    writer.writerow(["rank", "data_checksum", *params, *values_of, "trial_ids"])
    for row in board.rows:
        values = [getattr(row.metrics.get(name), part, None) for name in metrics for part in parts]
        swept = [row.params.get(name) for name in params]
        writer.writerow([row.rank, row.data_checksum, *swept, *values, " ".join(map(str, row.trial_ids))])
    return text.getvalue()


def short_name(name: str, others: Sequence[str]) -> str:
    """The last parts of a dotted name that tell it from the others."""
    if name.endswith(".name"):
        return short_name(name.removesuffix(".name"), [other.removesuffix(".name") for other in others])
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        short = ".".join(parts[-length:])
        if sum(other == short or other.endswith(f".{short}") for other in others) == 1:
            return short
    return name


def cell(value: Any) -> str:
    """A parameter's value in a table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and value.startswith("{"):
        return cell(json.loads(value))
    if isinstance(value, dict):
        options = ", ".join(f"{key}={cell(each)}" for key, each in value.items() if key != "name")
        return f"{value.get('name', '')}({options})" if options else str(value.get("name", ""))
    return "" if value is None else str(value)


def grouped(value: int | None) -> str | None:
    """12345 as 12,345."""
    return None if value is None else f"{value:,}"
