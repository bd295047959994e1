"""Options of the digital-world tasks. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import pydantic

from workloads.method import Method, option, options
from workloads.tasks.options.generated import Generated

REGISTERS = 10


@options
class CPUTrace(Generated):
    """Next byte of a simulated processor's trace; score `val_accuracy` over the bytes of the executed states.

    A trace is the memory, one 16-byte state before execution and one after each fetch, before the fetched
    instruction executes: program counter (counts instructions, stops at its last), accumulator, instruction register
    [4], registers A..J. Accumulator and registers start uniform in 0..255, the rest at 0. Instructions are four bytes
    (operation, three addresses, 0 for absent): HLT CLR INC DEC SHL SHR ROL ROR NOT PUSH POP LOADI SWAP ADD SUB MUL DIV
    AND OR XOR MOV are 0..20. INC DEC ADD SUB MUL saturate at 0 and 255, the shifts, rotations and NOT are of 8 bits,
    x/0 = 255. No address: the accumulator; a binary operation with one address: ACC op R to ACC; two: R1 op R2 to R1;
    three: R1 op R2 to R3; PUSH R: ACC = R; POP R: R = ACC; LOADI n: ACC = n; MOV A B: A = B; SWAP R: with ACC.
    Programs: 1..max_instructions long, uniform, the last HLT; operation uniform over the other 20, then uniform over
    its permitted numbers of addresses, registers and immediates uniform. Memory and first state are given, not scored.

    Generated: no source data, no licence. Split by content. Trivial baseline: `persistence`, the byte of the state
    before, measured on validation. Published: memory 1024, up to 255 instructions.
    """

    metrics: ClassVar[dict[str, str]] = {"val_sequence_accuracy": "maximize"}
    name: Literal["cpu_trace"] = "cpu_trace"
    memory_bytes: int = option(64, "Bytes of memory, four an instruction.", ge=4, le=1024, multiple_of=4)
    max_instructions: int = option(15, "Longest program, HLT included.", ge=1, le=255)

    @pydantic.model_validator(mode="after")
    def _program_fits(self) -> Self:
        if 4 * self.max_instructions > self.memory_bytes:
            raise ValueError(
                f"{self.max_instructions} instructions need {4 * self.max_instructions} bytes, "
                f"memory_bytes is {self.memory_bytes}"
            )
        return self


METHODS = (Method(CPUTrace, "workloads.tasks.cpu_trace:CPUTrace", "bGPT, arXiv:2402.19155, sec. 4 (CPU states)"),)
