"""The learning curve of one trial, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure


def learning_curve(curve: Sequence[tuple[int, float]], *, metric: str, goal: str, title: str) -> Figure:
    """`metric` over steps, with its best point marked. curve: (step, value), at least one, in order of steps.

    Made without pyplot, whose figures are global state that threads would share.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    steps, values = zip(*curve, strict=True)
    axes.plot(steps, values, marker="." if len(steps) < 50 else "", linewidth=1.5)
    pick = max if goal == "maximize" else min
    step, value = pick(curve, key=lambda point: point[1])
    axes.plot([step], [value], "o", markersize=9, fillstyle="none", label=f"best: {value:.5g} at step {step}")
    axes.set(title=title, xlabel="step", ylabel=metric)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
