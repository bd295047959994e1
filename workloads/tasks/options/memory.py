"""Options of the tasks that ask how long something is remembered. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from workloads.method import Method, option, options
from workloads.tasks.options.generated import Generated


@options
class Copying(Generated):
    """Copying memory; score `val_loss`, nats a step over the whole sequence, as published; `val_recall` beside it.

    Input: `symbols` ids drawn uniformly from 1..8, delay−1 zeros, symbols+1 nines. Target: delay+symbols zeros, then
    the symbols. Length delay + 2·symbols, whatever `training.sequence_length` says. Published delays 500, 1000, 2000.

    Generated: no source data, no licence. Split by content. Trivial baseline: `blind`, zeros with certainty and then
    uniform symbols, symbols·ln 8 / length nats a step.
    """

    goal: ClassVar[str] = "minimize"
    metric: ClassVar[str] = "val_loss"
    metrics: ClassVar[dict[str, str]] = {"val_accuracy": "maximize", "val_recall": "maximize"}
    name: Literal["copying"] = "copying"
    delay: int = option(1000, "T: steps from the first symbol's place behind the symbols to the call.", ge=1)
    symbols: int = option(10, "Symbols to remember.", ge=1)


@options
class SelectiveCopying(Generated):
    """Selective copying; score `val_accuracy`, the share of the final symbols that are right.

    A sequence of T tokens: a stretch of T−n−1 places holding n symbols in uniformly drawn places and blanks (id V−2)
    elsewhere, the copy mark (id V−1), n blanks. Targets: at the n last blanks the n symbols in order. T is
    `training.sequence_length`, 256 in the paper. Unlike the reference generator, blanks may follow the last symbol,
    and places come from the task's own generator.

    Generated: no source data, no licence. Split by content. Trivial baseline: `chance`, 1/(V−2).
    """

    metrics: ClassVar[dict[str, str]] = {"val_accuracy": "maximize", "val_sequence_accuracy": "maximize"}
    name: Literal["selective_copying"] = "selective_copying"
    vocab_size: int = option(16, "V, blank and copy mark included.", ge=4, sweep=[16, 32, 64, 128])
    symbols: int = option(16, "n, symbols to copy.", ge=1, sweep=[16, 32, 64, 96])


@options
class Adding(Generated):
    """Adding problem; score `val_loss`, the mean squared error of the sum.

    Inputs [T, 2]: u ~ U[0, 1] and a mask with two ones; target: the sum of the two marked u. T is
    `training.sequence_length`; published: 200, 400, 600.

    Generated: no source data, no licence. Split by content. Trivial baseline: `mean`, predicting 1 always: the
    variance of the sum, 1/6 = 0.1667 (papers often print 0.1767).
    """

    goal: ClassVar[str] = "minimize"
    metric: ClassVar[str] = "val_loss"
    name: Literal["adding"] = "adding"
    marks: Literal["anywhere", "halves"] = option(
        "anywhere", "The two ones: anywhere without repetition (TCN), or one in each half (Hochreiter)."
    )


METHODS = (
    Method(Copying, "workloads.tasks.memory:Copying", "Unitary evolution RNN, arXiv:1511.06464, sec. 4.1"),
    Method(SelectiveCopying, "workloads.tasks.memory:SelectiveCopying", "MAD, arXiv:2403.17844, sec. 3"),
    Method(Adding, "workloads.tasks.memory:Adding", "LSTM, Neural Computation 9(8), 1997, experiment 4; TCN's form"),
)
