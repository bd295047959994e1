"""bGPT's small processor, many of them at once. Shapes: N processors, M bytes of memory, R registers."""

from __future__ import annotations

import numpy as np

HLT, CLR, INC, DEC, SHL, SHR, ROL, ROR, NOT, PUSH, POP, LOADI, SWAP, ADD, SUB, MUL, DIV, AND, OR, XOR, MOV = range(21)
UNARY = (CLR, INC, DEC, SHL, SHR, ROL, ROR, NOT)
BINARY = (ADD, SUB, MUL, DIV, AND, OR, XOR)
REGISTERS = 10
STATE_BYTES = 2 + 4 + REGISTERS
FEWEST = np.array([0, *[0] * 8, 1, 1, 1, 1, *[1] * 7, 2])
MOST = np.array([0, *[1] * 8, 1, 1, 1, 2, *[3] * 7, 2])
"""By operation, the fewest and the most addresses that it takes."""


def random_programs(random: np.random.Generator, count: int, max_instructions: int) -> tuple[np.ndarray, np.ndarray]:
    """Programs and their lengths.

    Returns:
        code [N, max_instructions, 4] int64, HLT (zeros) from the last instruction on; lengths [N], HLT included.
    """
    lengths = random.integers(1, max_instructions + 1, count)
    shape = (count, max_instructions)
    operation = random.integers(1, MOV + 1, shape)
    addresses = random.integers(FEWEST[operation], MOST[operation] + 1)
    code = np.zeros((*shape, 4), np.int64)
    code[..., 0] = operation
    code[..., 1:] = random.integers(1, REGISTERS + 1, (*shape, 3)) * (np.arange(3) < addresses[..., None])
    code[..., 1] = np.where(operation == LOADI, random.integers(0, 256, shape), code[..., 1])
    code[np.arange(max_instructions) >= lengths[:, None] - 1] = 0
    return code, lengths


def run(code: np.ndarray, accumulator: np.ndarray, registers: np.ndarray, last_place: int) -> np.ndarray:
    """States of all processors, HLT's repeated once one has stopped.

    Args:
        code: [N, n, 4], ends with HLT. accumulator: [N]. registers: [N, R]. last_place: greatest program counter.

    Returns:
        [N, 1 + n, 16] int64: before execution, and after each fetch before its execution.
    """
    count, steps, _ = code.shape
    states = np.zeros((count, 1 + steps, STATE_BYTES), np.int64)
    # The accumulator stands before the registers, so that address 0 is the accumulator
    cells = np.concatenate([accumulator[:, None], registers], axis=1)
    states[:, 0, 1], states[:, 0, 6:] = cells[:, 0], cells[:, 1:]
    for step in range(steps):
        instruction = code[:, step]
        states[:, step + 1, 0] = min(step + 1, last_place)
        states[:, step + 1, 1], states[:, step + 1, 6:] = cells[:, 0], cells[:, 1:]
        states[:, step + 1, 2:6] = instruction
        execute(instruction, cells)
    return states


def execute(instruction: np.ndarray, cells: np.ndarray) -> None:
    """One instruction each, in place. instruction: [N, 4]; cells: [N, 1 + R], the accumulator first."""
    operation, a, b, c = instruction.T
    rows = np.arange(len(cells))
    for op in UNARY:
        mine = np.flatnonzero(operation == op)
        cells[mine, a[mine]] = _unary(op, cells[mine, a[mine]])
    for op in BINARY:
        mine = np.flatnonzero(operation == op)
        one, three = b[mine] == 0, c[mine] > 0
        left = np.where(one, 0, a[mine])
        right = np.where(one, a[mine], b[mine])
        cells[mine, np.where(three, c[mine], left)] = _binary(op, cells[mine, left], cells[mine, right])
    mine = rows[operation == PUSH]
    cells[mine, 0] = cells[mine, a[mine]]
    mine = rows[operation == POP]
    cells[mine, a[mine]] = cells[mine, 0]
    mine = rows[operation == LOADI]
    cells[mine, 0] = a[mine]
    mine = rows[operation == MOV]
    cells[mine, a[mine]] = cells[mine, b[mine]]
    mine = rows[operation == SWAP]
    first, second = cells[mine, a[mine]], cells[mine, b[mine]]
    cells[mine, a[mine]], cells[mine, b[mine]] = second, first


def _unary(op: int, x: np.ndarray) -> np.ndarray:
    results = {
        CLR: 0 * x,
        INC: np.minimum(x + 1, 255),
        DEC: np.maximum(x - 1, 0),
        SHL: x << 1 & 255,
        SHR: x >> 1,
        ROL: (x << 1 | x >> 7) & 255,
        ROR: (x >> 1 | x << 7) & 255,
        NOT: ~x & 255,
    }
    return results[op]


def _binary(op: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    results = {
        ADD: np.minimum(x + y, 255),
        SUB: np.maximum(x - y, 0),
        MUL: np.minimum(x * y, 255),
        DIV: np.where(y == 0, 255, x // np.maximum(y, 1)),
        AND: x & y,
        OR: x | y,
        XOR: x ^ y,
    }
    return results[op]
