"""Pictures of a trial from its checkpoint directory: `python -m workloads.figures DIRECTORY`.

learning_curve, load_heat_map (layer and expert over training), gate_histogram (by layer), memory_profile (gradient by
lag, half-life by layer); those of parts that the model lacks are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workloads import checkpoint
from workloads.diagnostics import View, views_of
from workloads.errors import CheckpointError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "figures"
DPI = 120


def draw(rows: Sequence[dict[str, Any]], metric: str, views: Sequence[View], folder: Path) -> list[Path]:
    """Draw a trial's reports as PNG files in `folder`.

    Args:
        rows: what it reported, at least once. metric: its task's. views: `workloads.diagnostics.Probe.history`.
    """
    figures = {"learning_curve": _learning_curve(rows, metric)}
    if any(layer.loads for view in views for layer in view.layers):
        figures["load_heat_map"] = _load_heat_map(views)
    if views and any(layer.histogram for layer in views[-1].layers):
        figures["gate_histogram"] = _gate_histogram(views[-1])
    if views:
        figures["memory_profile"] = _memory_profile(views)
    folder.mkdir(parents=True, exist_ok=True)
    return [_save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def draw_again(directory: Path) -> list[Path]:
    """Draw what the newest checkpoint in `directory` has seen, into `directory`/figures.

    Raises:
        CheckpointError: there is no checkpoint in it, or none that has reported.
    """
    path = checkpoint.latest(directory)
    state = checkpoint.load(path) if path else {"rows": []}
    if not state["rows"]:
        raise CheckpointError(f"no checkpoint with a report in {directory}. Train with a checkpoint directory first.")
    return draw(state["rows"], state["metric"], views_of(state["probe"]), directory / FOLDER)


def _save(figure: Figure, path: Path) -> Path:
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=DPI)
    partial.replace(path)
    return path


def _canvas(rows: int = 1, width: float = 6.0, height: float = 3.6, columns: int = 1) -> tuple[Figure, list[Axes]]:
    # A second to import, and wanted only where figures are drawn. Figure without pyplot keeps no global state and
    # needs no display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows))
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    # Margins in inches, since the layout engines draw every figure twice to find them
    whole_width, whole_height = width * columns, height * rows
    figure.subplots_adjust(
        left=0.8 / whole_width,
        right=1 - 0.8 / whole_width,
        bottom=0.5 / whole_height,
        top=1 - 0.35 / whole_height,
        hspace=0.25,
        wspace=0.3,
    )
    return figure, axes


def _learning_curve(rows: Sequence[dict[str, Any]], metric: str) -> Figure:
    figure, (axes,) = _canvas()
    steps = [row["step"] for row in rows]
    axes.plot(steps, [row["train_loss"] for row in rows], color="tab:gray", label="train_loss")
    axes.set_xlabel("step")
    axes.set_ylabel("train_loss")
    right = axes.twinx()
    right.plot(steps, [row[metric] for row in rows], color="tab:blue", marker=".", label=metric)
    right.set_ylabel(metric, color="tab:blue")
    baselines = {name: value for name, value in rows[-1].items() if name.startswith("baseline/")} if rows else {}
    for name, value in baselines.items():
        right.axhline(value, color="tab:red", linewidth=0.8, linestyle="--")
        right.annotate(name.removeprefix("baseline/"), (steps[0], value), color="tab:red", fontsize=8, va="bottom")
    axes.set_title("learning curve")
    return figure


def _load_heat_map(views: Sequence[View]) -> Figure:
    """A panel a mixture layer: experts down, training along, colour = load over the mean load."""
    layers = [i for i, layer in enumerate(views[-1].layers) if layer.loads]
    figure, panels = _canvas(rows=len(layers), height=2.2)
    for axes, index in zip(panels, layers, strict=True):
        columns = [_relative(view.layers[index].loads) for view in views if view.layers[index].loads]
        table = [list(row) for row in zip(*columns, strict=True)]
        # Half a step on each side, lest a single report have no width
        extent = (views[0].step - 0.5, views[-1].step + 0.5, len(table) - 0.5, -0.5)
        image = axes.imshow(table, aspect="auto", interpolation="nearest", vmin=0, vmax=2, cmap="RdBu_r", extent=extent)
        axes.set_ylabel(f"layer {index}\nexpert")
        figure.colorbar(image, ax=axes, label="load / mean", fraction=0.05, pad=0.02)
    panels[-1].set_xlabel("step")
    return figure


def _relative(loads: Sequence[float]) -> list[float]:
    mean = sum(loads) / len(loads)
    return [load / mean if mean else 0.0 for load in loads]


def _gate_histogram(view: View) -> Figure:
    layers = [i for i, layer in enumerate(view.layers) if layer.histogram]
    figure, panels = _canvas(rows=len(layers), height=1.8)
    for axes, index in zip(panels, layers, strict=True):
        counts = view.layers[index].histogram
        edges = [i / len(counts) for i in range(len(counts))]
        axes.bar(edges, [count / max(1.0, sum(counts)) for count in counts], width=1 / len(counts), align="edge")
        axes.set_xlim(0, 1)
        axes.set_ylabel(f"layer {index}\nshare")
    panels[0].set_title(f"forget gate at step {view.step}: 0 forgets, 1 keeps")
    panels[-1].set_xlabel("gate")
    return figure


def _memory_profile(views: Sequence[View]) -> Figure:
    figure, (lags, lives) = _canvas(columns=2, width=5.0)
    for view, colour in ((views[0], "tab:gray"), (views[-1], "tab:blue")):
        start = max(view.lag_norm[0], 1e-30)
        shown = [(lag + 1, norm / start) for lag, norm in enumerate(view.lag_norm) if norm > 0]
        if shown:
            lags.plot(*zip(*shown, strict=True), color=colour, label=f"step {view.step}")
    lags.set_xscale("log")
    lags.set_yscale("log")
    lags.set_xlabel("lag + 1")
    lags.set_ylabel("gradient norm / at lag 0")
    if lags.lines:
        lags.legend()
    gated = [i for i, layer in enumerate(views[-1].layers) if layer.gate]
    for index in gated:
        values = [(view.step, view.layers[index].gate["half_life"]) for view in views if view.layers[index].gate]
        lives.plot(*zip(*values, strict=True), marker=".", label=f"layer {index}")
    lives.set_xlabel("step")
    lives.set_ylabel("half-life of the state, steps")
    if gated:
        lives.set_yscale("log")
        lives.legend()
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, and print the files' names. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workloads.figures", description=__doc__)
    parser.add_argument("directory", type=Path, help="checkpoint directory of a trial")
    for path in draw_again(parser.parse_args(arguments).directory):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
