"""Long-range forecasting of one series. Shapes: B windows, L history, H horizon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from workloads import seeding
from workloads.datasets.series import read_series
from workloads.errors import DataError
from workloads.tasks.base import Batch, Predict, Signature, Task
from workloads.tasks.finite import fingerprint, fitted_once
from workloads.tasks.linear import ridge
from workloads.tasks.options.forecasting import Forecasting as Options

PERIODS = {"co2": 52, "outdoor_temperature": 144}
HOURLY_PERIOD = 168
TOY_LENGTH = 4000
RIDGE_PENALTY = 1.0
SCORED_AT_ONCE = 512


class Forecasting(Task):
    """Many steps ahead at once; the rule stands with the options."""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        values = toy_series() if options.series == "toy" else read_series(options.series)
        self.fingerprint = fingerprint(options, values)
        count = len(values)
        self.cuts = {"train": (0, count * 60 // 100), "val": (count * 60 // 100, count * 80 // 100)}
        self.cuts["test"] = (self.cuts["val"][1], count)
        train = values[: self.cuts["train"][1]]
        self.values = ((values - train.mean()) / train.std()).astype(np.float32)
        shortest = min(stop - start for start, stop in self.cuts.values())
        if len(train) < options.history + options.horizon or shortest < options.horizon:
            raise DataError(
                f"series {options.series!r} has {count} values, its parts at least {shortest}: too few for "
                f"task.history {options.history} and task.horizon {options.horizon}. Shorten them, or take "
                "a longer series."
            )

    def signature(self, sequence_length: int) -> Signature:
        """One real a step in, the whole horizon out of the last step; the length is the history."""
        return Signature(
            input_width=1, outputs=self.options.horizon, readout="last", sequence_length=self.options.history
        )

    def batch(self, step: int, seed: int, batch_size: int, sequence_length: int) -> Batch:
        """Windows [B, L, 1] at uniformly drawn places of the training part, and what follows them [B, H]; float32."""
        last = self.cuts["train"][1] - self.options.horizon
        places = seeding.numpy_generator(seed, "data", step).integers(self.options.history, last + 1, batch_size)
        return self._batch(places)

    def validation(self, batch_size: int, sequence_length: int) -> Iterator[Batch]:
        """The windows of the validation part."""
        return self._split("val", batch_size)

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """Mean squared and absolute errors on validation and test; `val_loss` is `val_mse`."""
        metrics: dict[str, float] = {}
        for part in ("val", "test"):
            squared, absolute, count = 0.0, 0.0, 0
            for batch in self._split(part, batch_size):
                output = model(batch.inputs)
                error = output - batch.targets.to(output.device)
                squared, absolute = squared + float(error.square().sum()), absolute + float(error.abs().sum())
                count += error.numel()
            metrics |= {f"{part}_mse": squared / count, f"{part}_mae": absolute / count}
        return metrics | {"val_loss": metrics["val_mse"]}

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """Mean squared errors on validation of the baselines that the options name, and of ridge on test too."""
        found = self.baselines("val")
        return found | {"ridge_test": self.baselines("test")["ridge"]}

    @fitted_once
    def baselines(self, part: str) -> dict[str, float]:
        """Mean squared error of each baseline on a part."""
        history, horizon = self.options.history, self.options.horizon
        past, future = self.windows(np.arange(history, self.cuts["train"][1] - horizon + 1))
        last = past[:, -1:]
        linear = ridge(past[:, :-1] - last, future - last, RIDGE_PENALTY)
        period = PERIODS.get(self.options.series, HOURLY_PERIOD)
        ahead = np.arange(horizon)
        sums = {"persistence": 0.0, "seasonal": 0.0, "ridge": 0.0}
        places = self.places(part)
        for i in range(0, len(places), SCORED_AT_ONCE):
            some = places[i : i + SCORED_AT_ONCE]
            past, future = self.windows(some)
            last = past[:, -1:]
            seasonal = self.values[some[:, None] - period + ahead % period]
            guesses = {"persistence": last, "seasonal": seasonal, "ridge": linear(past[:, :-1] - last) + last}
            for name, guess in guesses.items():
                sums[name] += float(np.square(guess - future).sum())
        return {name: total / (len(places) * horizon) for name, total in sums.items()}

    def places(self, part: str) -> np.ndarray:
        """Where the windows of a part begin to be predicted."""
        start, stop = self.cuts[part]
        return np.arange(max(start, self.options.history), stop - self.options.horizon + 1, self.options.stride)

    def windows(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is before [N, L] and from [N, H] each place on."""
        past = self.values[places[:, None] + np.arange(-self.options.history, 0)]
        return past, self.values[places[:, None] + np.arange(self.options.horizon)]

    def smoke(self) -> dict[str, Any]:
        """A GRU over a day of the series, one day ahead."""
        task = {"name": self.options.name, "series": self.options.series, "history": 48, "horizon": 24, "stride": 12}
        return {
            "task": task | {"centred": True},
            "model": {"d_model": 32, "n_layers": 1, "mixer": "gru"},
            "training": {"steps": 120, "batch_size": 32, "lr": 1e-2, "weight_decay": 0.0, "eval_every": 120},
        }

    def _split(self, part: str, batch_size: int) -> Iterator[Batch]:
        places = self.places(part)
        for i in range(0, len(places), batch_size):
            yield self._batch(places[i : i + batch_size])

    def _batch(self, places: np.ndarray) -> Batch:
        past, future = self.windows(places)
        if self.options.centred:
            past, future = past - past[:, -1:], future - past[:, -1:]
        return Batch(torch.from_numpy(past[..., None]), torch.from_numpy(future))


def toy_series() -> np.ndarray:
    """[4000] float64: a daily and a weekly wave and first-order autoregressive noise, from a fixed seed."""
    noise = seeding.numpy_generator(0, "toy_series").normal(size=TOY_LENGTH)
    drift = np.zeros(TOY_LENGTH)
    for t in range(1, TOY_LENGTH):
        drift[t] = 0.9 * drift[t - 1] + 0.1 * noise[t]
    hours = np.arange(TOY_LENGTH)
    return np.sin(2 * np.pi * hours / 24) + 0.5 * np.sin(2 * np.pi * hours / 168) + drift
