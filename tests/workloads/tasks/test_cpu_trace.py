"""Processor traces against a processor written the plain way, one instruction and one byte at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workloads import build_task
from workloads.tasks import cpu
from workloads.tasks.base import IGNORE

# fmt: off
NAMES = ["HLT", "CLR", "INC", "DEC", "SHL", "SHR", "ROL", "ROR", "NOT", "PUSH", "POP", "LOADI", "SWAP", "ADD", "SUB",
         "MUL", "DIV", "AND", "OR", "XOR", "MOV"]
# fmt: on
ONE = {
    "CLR": lambda x: 0,
    "INC": lambda x: min(x + 1, 255),
    "DEC": lambda x: max(x - 1, 0),
    "SHL": lambda x: x * 2 % 256,
    "SHR": lambda x: x // 2,
    "ROL": lambda x: x * 2 % 256 + x // 128,
    "ROR": lambda x: x // 2 + x % 2 * 128,
    "NOT": lambda x: 255 - x,
}
TWO = {
    "ADD": lambda x, y: min(x + y, 255),
    "SUB": lambda x, y: max(x - y, 0),
    "MUL": lambda x, y: min(x * y, 255),
    "DIV": lambda x, y: x // y if y else 255,
    "AND": lambda x, y: x & y,
    "OR": lambda x, y: x | y,
    "XOR": lambda x, y: x ^ y,
}


def trace_of(memory: list[int], accumulator: int, registers: list[int]) -> list[int]:
    """The whole trace file."""
    acc, regs, pc = accumulator, list(registers), 0
    out = [*memory, 0, acc, 0, 0, 0, 0, *regs]
    while True:
        op, a, b, c = memory[4 * pc : 4 * pc + 4]
        pc = min(pc + 1, len(memory) // 4 - 1)
        out += [pc, acc, op, a, b, c, *regs]
        name = NAMES[op]
        if name == "HLT":
            return out
        if name in ONE and a == 0:
            acc = ONE[name](acc)
        elif name in ONE:
            regs[a - 1] = ONE[name](regs[a - 1])
        elif name in TWO and b == 0:
            acc = TWO[name](acc, regs[a - 1])
        elif name in TWO:
            regs[(c or a) - 1] = TWO[name](regs[a - 1], regs[b - 1])
        elif name == "PUSH":
            acc = regs[a - 1]
        elif name == "POP":
            regs[a - 1] = acc
        elif name == "LOADI":
            acc = a
        elif name == "MOV":
            regs[a - 1] = regs[b - 1]
        elif b == 0:
            acc, regs[a - 1] = regs[a - 1], acc
        else:
            regs[a - 1], regs[b - 1] = regs[b - 1], regs[a - 1]


@pytest.mark.parametrize(("memory_bytes", "longest"), [(64, 15), (64, 16), (128, 30)])
def test_traces_are_those_of_the_plain_processor(memory_bytes: int, longest: int):
    task = build_task("cpu_trace", memory_bytes=memory_bytes, max_instructions=longest)
    traces, ends = task.traces(np.random.default_rng(0), 400)
    for trace, end in zip(traces.tolist(), ends, strict=True):
        memory, first = trace[:memory_bytes], trace[memory_bytes : memory_bytes + 16]
        assert trace[:end] == trace_of(memory, first[1], first[6:])
        assert not any(trace[end:])


def test_programs_have_every_operation_with_every_number_of_addresses():
    code, lengths = cpu.random_programs(np.random.default_rng(1), 3000, 12)
    assert set(lengths) == set(range(1, 13))
    assert (code[np.arange(3000), lengths - 1] == 0).all()
    flat = code.reshape(-1, 4)
    flat = flat[flat[:, 0] > 0]
    operations = np.bincount(flat[:, 0], minlength=21)[1:]
    assert np.abs(operations / operations.sum() - 1 / 20).max() < 0.01
    used = {NAMES[op]: set() for op in range(1, 21)}
    for op, *addresses in flat.tolist():
        used[NAMES[op]].add(sum(a > 0 for a in addresses))
    assert all(used[name] == {0, 1} for name in ONE)
    assert all(used[name] == {1, 2, 3} for name in TWO)
    assert used["PUSH"] == used["POP"] == {1}
    assert used["LOADI"] == {0, 1}  # the number 0 counts as absent
    assert used["SWAP"] == {1, 2}
    assert used["MOV"] == {2}


def test_the_executed_states_alone_are_scored():
    task = build_task("cpu_trace", memory_bytes=16, max_instructions=4)
    batch = task.batch(1, 0, 50, 0)
    for x, y in zip(batch.inputs, batch.targets, strict=True):
        assert (y[: 32 - 1] == IGNORE).all()
        scored = (y != IGNORE).nonzero().flatten()
        assert scored[0] == 31
        assert len(scored) % 16 == 0
        assert (scored.diff() == 1).all()
        following = x[scored[:-1] + 1]
        assert (y[scored[:-1]] == following).all()


def test_repeating_the_state_before_reaches_the_baseline():
    task = build_task("cpu_trace", memory_bytes=16, max_instructions=4, validation_examples=60)

    def persistence(inputs: torch.Tensor) -> torch.Tensor:
        guess = torch.zeros_like(inputs)
        guess[:, 15:] = inputs[:, :-15]
        return torch.nn.functional.one_hot(guess, 256).float()

    assert task.evaluate(persistence, 30, 0)["val_accuracy"] == pytest.approx(task.baseline(0)["persistence"])


def test_a_program_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="memory_bytes is 32"):
        build_task("cpu_trace", memory_bytes=32)
