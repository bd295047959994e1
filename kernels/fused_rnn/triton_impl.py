"""Recurrent cells over time in Triton: one program owns a head and a few rows of the batch, and keeps R on chip.

Legend: o_ offsets, m_ masks, b_ a block in registers (float32). [BB] rows of the batch, [BD] units of a head. Gate g
of a step is ``h R_gᵀ + pre_g``. The forward pass keeps every state and the gates before their non-linearity, so that
the backward pass holds R in one orientation only; the gradient of R is one product over all steps, left to the library.

    dpre, drec = cell backward,   dh ← Σ_g drec_g R_g

Heads too wide for a program's registers (64 units of 16-bit inputs, else 32) run step by step in PyTorch's operators,
dense ones in cuDNN.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.aot import AotSpec
from kernels.backend import dot_precision
from kernels.fused_rnn import cpu
from kernels.fused_rnn.cells import CELLS, State

_ROWS = 16  # of the batch in a program: the least that a matrix product takes
_KIND = {"rnn_tanh": 0, "lstm": 1, "gru": 2, "slstm": 3}


@triton.jit
def _tanh(x):
    # 2σ(2x) − 1 has no overflow at either end, where a quotient of exponentials has
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _log_sigmoid(x):
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _matrix(w_ptr, gate: tl.constexpr, o_d, m_d, D):
    """R_g transposed, [in, out]."""
    p_w = w_ptr + (gate * D + o_d[None, :]) * D + o_d[:, None]
    return tl.load(p_w, mask=m_d[None, :] & m_d[:, None], other=0.0).to(tl.float32)


@triton.jit
def _matrix_back(w_ptr, gate: tl.constexpr, o_d, m_d, D):
    """R_g, [out, in]."""
    p_w = w_ptr + (gate * D + o_d[:, None]) * D + o_d[None, :]
    return tl.load(p_w, mask=m_d[:, None] & m_d[None, :], other=0.0).to(tl.float32)


@triton.jit
def _row(p, gate: tl.constexpr, o_d, m_bd, D):
    return tl.load(p + gate * D + o_d[None, :], mask=m_bd, other=0.0).to(tl.float32)


@triton.jit
def _gates(p_pre, p_b, b_h, b_w0, b_w1, b_w2, b_w3, o_d, m_bd, D, KIND: tl.constexpr, PRECISION: tl.constexpr):
    """The four gates before their non-linearity; of "gru" the recurrent part of n comes last."""
    b_0 = _row(p_pre, 0, o_d, m_bd, D) + _row(p_b, 0, o_d, m_bd, D) + tl.dot(b_h, b_w0, input_precision=PRECISION)
    b_1 = b_0
    b_2 = b_0
    b_3 = b_0
    if KIND != 0:
        b_1 = _row(p_pre, 1, o_d, m_bd, D) + _row(p_b, 1, o_d, m_bd, D) + tl.dot(b_h, b_w1, input_precision=PRECISION)
        b_2 = _row(p_b, 2, o_d, m_bd, D) + tl.dot(b_h, b_w2, input_precision=PRECISION)
        if KIND == 2:
            b_3 = b_2
            b_2 = _row(p_pre, 2, o_d, m_bd, D)
        else:
            b_2 += _row(p_pre, 2, o_d, m_bd, D)
            b_3 = _row(p_pre, 3, o_d, m_bd, D) + _row(p_b, 3, o_d, m_bd, D)
            b_3 += tl.dot(b_h, b_w3, input_precision=PRECISION)
    return b_0, b_1, b_2, b_3


@triton.jit(do_not_specialize=["T"])
def _forward_kernel(
    pre_ptr, w_ptr, b_ptr, first_ptr, states_ptr, gates_ptr, T, B, D,
    KIND: tl.constexpr, S: tl.constexpr, G: tl.constexpr, A: tl.constexpr, PRECISION: tl.constexpr,
    BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """states [T, S, N, B, D] and gates [T, N, B, A·D] from pre [T, N, B, G·D] and first [S, N, B, D].

    S states, G gates, N heads, A arguments of the non-linearities (4 of "gru", whose n has two).
    """
    i_n, i_b = tl.program_id(0).to(tl.int64), tl.program_id(1)
    N = tl.num_programs(0).to(tl.int64)
    o_b, o_d = i_b * BB + tl.arange(0, BB), tl.arange(0, BD)
    m_d = o_d < D
    m_bd = (o_b < B)[:, None] & m_d[None, :]
    w_head = w_ptr + i_n * G * D * D
    b_w0 = _matrix(w_head, 0, o_d, m_d, D)
    b_w1 = b_w0
    b_w2 = b_w0
    b_w3 = b_w0
    if G > 1:
        b_w1 = _matrix(w_head, 1, o_d, m_d, D)
        b_w2 = _matrix(w_head, 2, o_d, m_d, D)
    if G > 3:
        b_w3 = _matrix(w_head, 3, o_d, m_d, D)
    p_b = b_ptr + i_n * G * D + o_b[:, None] * 0
    o_s = (i_n * B + o_b[:, None]) * D + o_d[None, :]
    size = N * B * D
    b_h = tl.load(first_ptr + o_s, mask=m_bd, other=0.0).to(tl.float32)
    b_c = b_h
    b_n = b_h
    b_m = b_h
    if S > 1:
        b_c = tl.load(first_ptr + size + o_s, mask=m_bd, other=0.0).to(tl.float32)
    if S > 2:
        b_n = tl.load(first_ptr + 2 * size + o_s, mask=m_bd, other=1.0).to(tl.float32)
        b_m = tl.load(first_ptr + 3 * size + o_s, mask=m_bd, other=0.0).to(tl.float32)
    for t in range(T):
        p_pre = pre_ptr + ((t * N + i_n) * B + o_b[:, None]) * G * D
        b_0, b_1, b_2, b_3 = _gates(p_pre, p_b, b_h, b_w0, b_w1, b_w2, b_w3, o_d, m_bd, D, KIND, PRECISION)
        p_s = states_ptr + t * S * size + o_s
        p_g = gates_ptr + ((t * N + i_n) * B + o_b[:, None]) * A * D + o_d[None, :]
        tl.store(p_g, b_0, mask=m_bd)
        if A > 1:
            tl.store(p_g + D, b_1, mask=m_bd)
            tl.store(p_g + 2 * D, b_2, mask=m_bd)
            tl.store(p_g + 3 * D, b_3, mask=m_bd)
        if KIND == 0:
            b_h = _tanh(b_0)
        elif KIND == 1:
            b_c = tl.sigmoid(b_1) * b_c + tl.sigmoid(b_0) * _tanh(b_2)
            b_h = tl.sigmoid(b_3) * _tanh(b_c)
            tl.store(p_s + size, b_c, mask=m_bd)
        elif KIND == 2:
            b_new = _tanh(b_2 + tl.sigmoid(b_0) * b_3)
            b_h = b_new + tl.sigmoid(b_1) * (b_h - b_new)
        else:
            b_f = _log_sigmoid(b_1) + b_m
            b_m = tl.maximum(b_f, b_0)
            b_i = tl.exp(b_0 - b_m)
            b_f = tl.exp(b_f - b_m)
            b_c = b_f * b_c + b_i * _tanh(b_2)
            b_n = b_f * b_n + b_i
            b_h = tl.sigmoid(b_3) * b_c / b_n
            tl.store(p_s + size, b_c, mask=m_bd)
            tl.store(p_s + 2 * size, b_n, mask=m_bd)
            tl.store(p_s + 3 * size, b_m, mask=m_bd)
        tl.store(p_s, b_h, mask=m_bd)


@triton.jit(do_not_specialize=["T"])
def _backward_kernel(
    w_ptr, first_ptr, states_ptr, gates_ptr, dy_ptr, dstate_ptr, dpre_ptr, drec_ptr, T, B, D,
    KIND: tl.constexpr, S: tl.constexpr, G: tl.constexpr, A: tl.constexpr, PRECISION: tl.constexpr,
    BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """dpre, and drec [T, N, B, D] of the gate whose recurrent part has its own gradient (n of "gru").

    dstate [S, N, B, D] arrives as the gradient of the last state and leaves as that of the first.
    """
    i_n, i_b = tl.program_id(0).to(tl.int64), tl.program_id(1)
    N = tl.num_programs(0).to(tl.int64)
    o_b, o_d = i_b * BB + tl.arange(0, BB), tl.arange(0, BD)
    m_d = o_d < D
    m_bd = (o_b < B)[:, None] & m_d[None, :]
    w_head = w_ptr + i_n * G * D * D
    b_w0 = _matrix_back(w_head, 0, o_d, m_d, D)
    b_w1 = b_w0
    b_w2 = b_w0
    b_w3 = b_w0
    if G > 1:
        b_w1 = _matrix_back(w_head, 1, o_d, m_d, D)
        b_w2 = _matrix_back(w_head, 2, o_d, m_d, D)
    if G > 3:
        b_w3 = _matrix_back(w_head, 3, o_d, m_d, D)
    o_s = (i_n * B + o_b[:, None]) * D + o_d[None, :]
    size = N * B * D
    b_dh = tl.load(dstate_ptr + o_s, mask=m_bd, other=0.0)
    b_dc = b_dh
    b_dn = b_dh
    b_dm = b_dh
    if S > 1:
        b_dc = tl.load(dstate_ptr + size + o_s, mask=m_bd, other=0.0)
    if S > 2:
        b_dn = tl.load(dstate_ptr + 2 * size + o_s, mask=m_bd, other=0.0)
        b_dm = tl.load(dstate_ptr + 3 * size + o_s, mask=m_bd, other=0.0)
    for step in range(T):
        t = T - 1 - step
        p_g = gates_ptr + ((t * N + i_n) * B + o_b[:, None]) * A * D + o_d[None, :]
        p_dpre = dpre_ptr + ((t * N + i_n) * B + o_b[:, None]) * G * D + o_d[None, :]
        p_now = states_ptr + t * S * size + o_s
        p_past = p_now - S * size
        if t == 0:
            p_past = first_ptr + o_s
        b_past = tl.load(p_past, mask=m_bd, other=0.0).to(tl.float32)
        b_0 = tl.load(p_g, mask=m_bd, other=0.0)
        b_1 = b_0
        b_2 = b_0
        b_3 = b_0
        if A > 1:
            b_1 = tl.load(p_g + D, mask=m_bd, other=0.0)
            b_2 = tl.load(p_g + 2 * D, mask=m_bd, other=0.0)
            b_3 = tl.load(p_g + 3 * D, mask=m_bd, other=0.0)
        b_dh += tl.load(dy_ptr + t * size + o_s, mask=m_bd, other=0.0).to(tl.float32)
        b_d1 = b_dh
        b_d2 = b_dh
        b_d3 = b_dh
        b_keep = b_dh * 0
        if KIND == 0:
            b_new = _tanh(b_0)
            b_d0 = b_dh * (1 - b_new * b_new)
        elif KIND == 1:
            b_c = tl.load(p_now + size, mask=m_bd, other=0.0)
            b_cpast = tl.load(p_past + size, mask=m_bd, other=0.0).to(tl.float32)
            b_i, b_f, b_z, b_o = tl.sigmoid(b_0), tl.sigmoid(b_1), _tanh(b_2), tl.sigmoid(b_3)
            b_th = _tanh(b_c)
            b_dc += b_dh * b_o * (1 - b_th * b_th)
            b_d0 = b_dc * b_z * b_i * (1 - b_i)
            b_d1 = b_dc * b_cpast * b_f * (1 - b_f)
            b_d2 = b_dc * b_i * (1 - b_z * b_z)
            b_d3 = b_dh * b_th * b_o * (1 - b_o)
            b_dc = b_dc * b_f
        elif KIND == 2:
            b_r, b_z = tl.sigmoid(b_0), tl.sigmoid(b_1)
            b_new = _tanh(b_2 + b_r * b_3)
            b_d2 = b_dh * (1 - b_z) * (1 - b_new * b_new)
            b_d0 = b_d2 * b_3 * b_r * (1 - b_r)
            b_d1 = b_dh * (b_past - b_new) * b_z * (1 - b_z)
            b_keep = b_dh * b_z
        else:
            b_c = tl.load(p_now + size, mask=m_bd, other=0.0)
            b_n = tl.load(p_now + 2 * size, mask=m_bd, other=1.0)
            b_m = tl.load(p_now + 3 * size, mask=m_bd, other=0.0)
            b_cpast = tl.load(p_past + size, mask=m_bd, other=0.0).to(tl.float32)
            b_npast = tl.load(p_past + 2 * size, mask=m_bd, other=0.0).to(tl.float32)
            b_fm = _log_sigmoid(b_1) + tl.load(p_past + 3 * size, mask=m_bd, other=0.0).to(tl.float32)
            b_i, b_f, b_z, b_o = tl.exp(b_0 - b_m), tl.exp(b_fm - b_m), _tanh(b_2), tl.sigmoid(b_3)
            b_d3 = b_dh * b_c / b_n * b_o * (1 - b_o)
            b_dc += b_dh * b_o / b_n
            b_dn -= b_dh * b_o * b_c / (b_n * b_n)
            b_d0 = (b_dc * b_z + b_dn) * b_i
            b_df = (b_dc * b_cpast + b_dn * b_npast) * b_f
            b_dm -= b_d0 + b_df
            # the larger of the two set the stabiliser; equal ones share it, as torch.maximum has it
            b_share = tl.where(b_fm > b_0, 1.0, tl.where(b_fm == b_0, 0.5, 0.0))
            b_df += b_dm * b_share
            b_d0 += b_dm * (1 - b_share)
            b_d1 = b_df * tl.sigmoid(-b_1)
            b_d2 = b_dc * b_i * (1 - b_z * b_z)
            b_dc = b_dc * b_f
            b_dn = b_dn * b_f
            b_dm = b_df
        tl.store(p_dpre, b_d0, mask=m_bd)
        b_dh = b_keep + tl.dot(b_d0, b_w0, input_precision=PRECISION)
        if KIND != 0:
            tl.store(p_dpre + D, b_d1, mask=m_bd)
            tl.store(p_dpre + 2 * D, b_d2, mask=m_bd)
            if KIND == 2:
                b_d2 = b_d2 * b_r
                tl.store(drec_ptr + t * size + o_s, b_d2, mask=m_bd)
            else:
                tl.store(p_dpre + 3 * D, b_d3, mask=m_bd)
                b_dh += tl.dot(b_d3, b_w3, input_precision=PRECISION)
            b_dh += tl.dot(b_d1, b_w1, input_precision=PRECISION)
            b_dh += tl.dot(b_d2, b_w2, input_precision=PRECISION)
    tl.store(dstate_ptr + o_s, b_dh, mask=m_bd)
    if S > 1:
        tl.store(dstate_ptr + size + o_s, b_dc, mask=m_bd)
    if S > 2:
        tl.store(dstate_ptr + 2 * size + o_s, b_dn, mask=m_bd)
        tl.store(dstate_ptr + 3 * size + o_s, b_dm, mask=m_bd)


def _constants(cell: str, size: int, precision: str) -> dict[str, Any]:
    kind = CELLS[cell]
    block = max(16, triton.next_power_of_2(size))
    arguments = 1 if kind.gates == 1 else 4
    return {
        "KIND": _KIND[cell], "S": len(kind.states), "G": kind.gates, "A": arguments, "PRECISION": precision,
        "BB": _ROWS, "BD": block,
    }  # fmt: skip


def _widest(precision: str) -> int:
    """Units of a head whose four matrices fit the registers of a program without spills."""
    return 64 if precision == "tf32" and not torch.version.hip else 32


def _warps(constants: dict[str, Any]) -> int:
    # a wide head's matrices fill the registers of four warps and spill
    return 8 if constants["BD"] > 32 else 4


class _FusedRnn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: str, precision: str, pre_TNBX: Tensor, w_NXD: Tensor, b_NX: Tensor, first_SNBD: Tensor
    ) -> tuple[Tensor, Tensor]:
        steps, heads, batch, _ = pre_TNBX.shape
        size = w_NXD.shape[-1]
        constants = _constants(cell, size, precision)
        states = torch.empty(steps, *first_SNBD.shape, dtype=torch.float32, device=pre_TNBX.device)
        gates = torch.empty(steps, heads, batch, constants["A"] * size, dtype=torch.float32, device=pre_TNBX.device)
        _forward_kernel[(heads, triton.cdiv(batch, _ROWS))](
            pre_TNBX, w_NXD, b_NX, first_SNBD, states, gates, steps, batch, size,
            **constants, num_warps=_warps(constants),
        )  # fmt: skip
        ctx.save_for_backward(w_NXD, first_SNBD, states, gates)
        ctx.constants = constants
        return states[:, 0].clone(), states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TNBD: Tensor, dlast_SNBD: Tensor) -> tuple[Tensor | None, ...]:
        w, first, states, gates = ctx.saved_tensors
        steps, _, heads, batch, size = states.shape
        constants = ctx.constants
        dstate = dlast_SNBD.clone(memory_format=torch.contiguous_format)
        dpre = gates.new_empty(steps, heads, batch, constants["G"] * size)
        drec_n = gates.new_empty(steps, heads, batch, size)
        _backward_kernel[(heads, triton.cdiv(batch, _ROWS))](
            w, first, states, gates, dy_TNBD.contiguous(), dstate, dpre, drec_n, steps, batch, size,
            **constants, num_warps=_warps(constants),
        )  # fmt: skip
        drec = torch.cat([dpre[..., : 2 * size], drec_n], dim=-1) if constants["KIND"] == _KIND["gru"] else dpre
        past = torch.cat([first[None, 0], states[:-1, 0]])
        dw = torch.bmm(drec.permute(1, 3, 0, 2).flatten(2), past.transpose(0, 1).flatten(1, 2))
        return None, None, dpre, dw, drec.sum(dim=(0, 2)), dstate


def fused_rnn(
    cell: str, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, state: State
) -> tuple[Tensor, State]:
    """The cell over time in float32; see :func:`kernels.fused_rnn`."""
    w_NXD = w_hh if w_hh.ndim == 3 else w_hh[None]
    heads, width, size = w_NXD.shape
    precision = dot_precision(x.dtype)
    if size > _widest(precision) or torch.float64 in (x.dtype, w_hh.dtype):
        return cpu.fused_rnn(cell, x, w_ih, w_hh, b_ih, b_hh, state)
    gates = CELLS[cell].gates
    pre_BTGND = F.linear(x, w_ih.to(x.dtype), None if b_ih is None else b_ih.to(x.dtype)).float()
    b = w_hh.new_zeros(gates * heads * size) if b_hh is None else b_hh
    y, last = _FusedRnn.apply(
        cell,
        precision,
        pre_BTGND.unflatten(-1, (gates, heads, size)).permute(1, 3, 0, 2, 4).flatten(3).contiguous(),
        w_NXD.float().contiguous(),
        b.float().view(gates, heads, size).transpose(0, 1).reshape(heads, width),
        torch.stack([s.float().unflatten(-1, (heads, size)).transpose(0, 1) for s in state]).contiguous(),
    )
    return y.permute(2, 0, 1, 3).flatten(2).to(x.dtype), tuple(s.transpose(0, 1).flatten(1) for s in last)


def _specs() -> list[AotSpec]:
    data = dict.fromkeys(("w_ptr", "first_ptr", "states_ptr", "gates_ptr"), "*fp32")
    forward = data | dict.fromkeys(("pre_ptr", "b_ptr"), "*fp32")
    backward = data | dict.fromkeys(("dy_ptr", "dstate_ptr", "dpre_ptr", "drec_ptr"), "*fp32")
    sizes = dict.fromkeys("TBD", "i32")
    specs = []
    for cell in CELLS:
        for size, precision, backend in (
            (64, "tf32", "cuda"), (32, "tf32x3", "cuda"), (32, "tf32", "hip"), (32, "ieee", "hip"),
        ):  # fmt: skip
            constants = _constants(cell, size, precision)
            warps = _warps(constants)
            name = f"{cell} {size} {precision}"
            specs += [
                AotSpec(
                    f"fused_rnn.forward {name}", _forward_kernel, forward | sizes, constants, warps, backend=backend
                ),
                AotSpec(
                    f"fused_rnn.backward {name}", _backward_kernel, backward | sizes, constants, warps, backend=backend
                ),
            ]
    return specs


AOT_SPECS = _specs()
