"""Modelling of processor traces. Shapes: N traces, T bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from workloads.tasks import cpu
from workloads.tasks.base import IGNORE, Predict, Signature
from workloads.tasks.generated import Examples, Generated, accuracy
from workloads.tasks.options.cpu import CPUTrace as Options

BYTES = 256


class CPUTrace(Generated):
    """Next byte of a trace; the rule stands with the options."""

    options: Options

    @property
    def given(self) -> int:
        """Bytes before the first scored one: the memory and the first state."""
        return int(self.options.memory_bytes) + cpu.STATE_BYTES

    @property
    def length(self) -> int:
        """Bytes of the longest trace, less the last, which is a target only."""
        return self.given + cpu.STATE_BYTES * int(self.options.max_instructions) - 1

    def signature(self, sequence_length: int) -> Signature:
        """Ids of bytes in, 256 classes at each position out; the length is the task's own."""
        return Signature(vocab_size=BYTES, outputs=BYTES, sequence_length=self.length)

    def draw(self, random: np.random.Generator, count: int, length: int) -> Examples:
        """Inputs and targets [N, length of the longest trace − 1] int64, zeros after the end of a trace."""
        traces, ends = self.traces(random, count)
        targets = traces[:, 1:].copy()
        place = np.arange(1, traces.shape[1])
        targets[:, place < self.given] = IGNORE
        targets[place >= ends[:, None]] = IGNORE
        return traces[:, :-1], targets

    def traces(self, random: np.random.Generator, count: int) -> Examples:
        """Trace files [N, longest] int64, zeros after their end, and their lengths in bytes [N]."""
        code, lengths = cpu.random_programs(random, count, self.options.max_instructions)
        memory = np.zeros((count, self.options.memory_bytes), np.int64)
        memory[:, : 4 * self.options.max_instructions] = code.reshape(count, -1)
        initial = random.integers(0, BYTES, (count, 1 + cpu.REGISTERS))
        states = cpu.run(code, initial[:, 0], initial[:, 1:], self.options.memory_bytes // 4 - 1)
        traces = np.concatenate([memory, states.reshape(count, -1)], axis=1)
        ends = self.given + cpu.STATE_BYTES * lengths
        traces[np.arange(traces.shape[1]) >= ends[:, None]] = 0
        return traces, ends

    def evaluate(self, model: Predict, batch_size: int, sequence_length: int) -> dict[str, float]:
        """The defaults, and `val_sequence_accuracy`: all bytes of a trace right."""
        metrics = super().evaluate(model, batch_size, sequence_length)
        _, whole = accuracy(model, self.validation(batch_size, sequence_length))
        return metrics | {"val_sequence_accuracy": whole}

    def baseline(self, sequence_length: int) -> dict[str, float]:
        """The byte at the same place of the state before."""
        inputs, targets = self.fixed("validation", self.options.validation_examples, sequence_length)
        back = cpu.STATE_BYTES - 1
        scored = targets[:, back:] != IGNORE
        same = inputs[:, : inputs.shape[1] - back] == targets[:, back:]
        return {"persistence": float(same[scored].mean())}

    def smoke(self) -> dict[str, Any]:
        """A convolution that spans one state, then attention that looks the instruction up, on short programs."""
        task = {"name": self.options.name, "memory_bytes": 16, "max_instructions": 4, "validation_examples": 64}
        mixer = [{"name": "gcnn", "kernel": cpu.STATE_BYTES}, {"name": "attention", "num_heads": 2}]
        return {
            "task": task,
            "model": {"d_model": 64, "n_layers": 2, "mixer": mixer, "tie_embeddings": True},
            "training": {"steps": 150, "batch_size": 16, "lr": 5e-3, "weight_decay": 0.0, "eval_every": 150},
        }
