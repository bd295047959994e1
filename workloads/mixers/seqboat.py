"""SeqBoat: a gated attention unit at chosen steps, over a multi-head moving average."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.mixers.base import ObservedMixer, undecayed, wide
from workloads.mixers.long_conv import long_convolution, powers
from workloads.mixers.options.attention import SeqBoat as Options
from workloads.mixers.parts import linear

State = dict[str, Tensor]


class MovingAverage(nn.Module):
    """N decaying averages a channel and a skip: x [B, T, D] -> [B, T, D]. State [B, D, N]."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.damp, self.decay = (undecayed(0.2 * torch.randn(width, size)) for _ in range(2))
        sign = 1 - 2 * (torch.arange(size) % 2)
        self.write = nn.Parameter(sign + 0.02 * torch.randn(width, size))
        self.read = nn.Parameter(torch.randn(width, size))
        self.skip = nn.Parameter(torch.randn(width))

    def log_keep(self) -> Tensor:
        """log q [D, N], q = 1 − σ(δ) σ(α)."""
        return torch.log1p(-wide(self.damp).sigmoid() * wide(self.decay).sigmoid())

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x in float32 or wider."""
        log_q = self.log_keep().to(x.dtype)
        weight = wide(self.damp).sigmoid() * wide(self.write) * wide(self.read)
        weight = weight.to(x.dtype) / math.sqrt(log_q.shape[1])
        decay = powers(log_q, x.shape[1])
        y = long_convolution(x, torch.einsum("dn,dnt->dt", weight, decay)) + wide(self.skip) * x
        last = torch.einsum("btd,dnt->bdn", x, decay.flip(2))
        if state is not None:
            after = decay * log_q.exp()[..., None]
            y = y + torch.einsum("bdn,dnt->btd", weight * state.to(x.dtype), after)
            last = last + state.to(x.dtype) * after[..., -1]
        return y, last


class SeqBoat(ObservedMixer):
    """SeqBoat layer; see the options for the formula."""

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.window, self.function = d_model, options.window, options.attention
        self.key_size, self.inner = options.key_size, round(options.expand * d_model)
        self.average = MovingAverage(d_model, options.ema_size)
        self.choose = linear(d_model, 2 + d_model, bias=True)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(options.temperature * math.sqrt(d_model))))
        self.into = linear(d_model, options.key_size + 2 * self.inner, bias=True)
        self.scale = undecayed(torch.empty(2, options.key_size))
        self.shift = undecayed(torch.zeros(2, options.key_size))
        self.distance = nn.Parameter(torch.zeros(options.window))
        self.out = linear(self.inner, d_model, bias=True)
        nn.init.normal_(self.scale, std=0.02)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] -> (y [B, T, D], state by name)."""
        average, last = self.average(wide(x), state["average"] if state else None)
        if self.record_gates:
            self.note_gate(self.average.log_keep().expand(*x.shape[:2], -1, -1))
        m = F.silu(average).to(x.dtype)
        logits, residual = self.choose(m).split([2, self.d_model], dim=-1)
        p = (wide(logits) / self.log_temperature.exp()).softmax(dim=-1)
        chosen = p[..., 1] > p[..., 0]
        h, kept = self._attend(m, chosen, state)
        y = F.silu(x + residual + (p[..., 1:] * h).to(x.dtype))
        return y, kept | {"average": last}

    def _attend(self, m: Tensor, chosen: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The unit at the chosen steps, 0 elsewhere: (h [B, T, D], the last chosen keys and values)."""
        # stable: the chosen steps come first, in their order. Their largest number decides the packed length, which
        # costs one wait for the device
        order = torch.argsort(~chosen, dim=1, stable=True)
        count = chosen.sum(dim=1)
        packed = int(count.max())
        order = order[:, :packed]
        real = torch.arange(packed, device=m.device) < count[:, None]
        rows = m.gather(1, order[..., None].expand(-1, -1, self.d_model))
        z, r, v = F.silu(self.into(rows)).split([self.key_size, self.inner, self.inner], dim=-1)
        (q_scale, k_scale), (q_shift, k_shift) = self.scale, self.shift
        q, k = wide(z * q_scale + q_shift), wide(z * k_scale + k_shift)
        keys, values, valid = self._with_past(k, wide(v), real, state)
        attended = self._banded(q, keys, values, valid).to(r.dtype)
        h = wide(self.out(r * attended)) * real[..., None]
        spread = h.new_zeros(*m.shape).scatter(1, order[..., None].expand(-1, -1, self.d_model), h)
        return spread, self._last(keys, values, valid, count)

    def _with_past(self, k: Tensor, v: Tensor, real: Tensor, state: State | None) -> tuple[Tensor, Tensor, Tensor]:
        """`window` − 1 earlier chosen steps in front, [B, window − 1 + P, ...], and which of all of them exist."""
        past = self.window - 1
        if state is None:
            return F.pad(k, (0, 0, past, 0)), F.pad(v, (0, 0, past, 0)), F.pad(real, (past, 0))
        old = (state["keys"].to(k.dtype), state["values"].to(v.dtype), state["valid"])
        return tuple(torch.cat(pair, dim=1) for pair in zip(old, (k, v, real), strict=True))  # type: ignore[return-value]

    def _last(self, keys: Tensor, values: Tensor, valid: Tensor, count: Tensor) -> State:
        """The `window` − 1 entries before each row's own end."""
        index = count[:, None] + torch.arange(self.window - 1, device=keys.device)
        kept_keys = keys.gather(1, index[..., None].expand(-1, -1, keys.shape[2]))
        kept_values = values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
        return {"keys": kept_keys, "values": kept_values, "valid": valid.gather(1, index)}

    def _banded(self, q: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """Query i over entries i .. i + window − 1, in blocks of queries: [B, P, key_size] -> [B, P, inner]."""
        packed = q.shape[1]
        if packed == 0:
            return values[:, :0]
        block = min(packed, self.window)
        tail = -packed % block
        span = self.window - 1 + block
        q = F.pad(q, (0, 0, 0, tail)).unflatten(1, (-1, block))
        keys, values = (F.pad(y, (0, 0, 0, tail)).unfold(1, span, block) for y in (keys, values))
        exists = F.pad(valid, (0, tail)).unfold(1, span, block)[:, :, None]
        ahead = torch.arange(span, device=q.device) - torch.arange(block, device=q.device)[:, None]
        inside = (ahead >= 0) & (ahead < self.window)
        bias = wide(self.distance)[ahead.clamp(0, self.window - 1)]
        seen = exists & inside
        scores = q @ keys
        if self.function == "relu2":
            weight = F.relu(scores / self.window + bias).square() * seen
        else:
            scores = scores / math.sqrt(self.key_size) + bias
            # a padded query sees nothing; a finite filling keeps its softmax, which is thrown away, a number
            weight = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(dim=-1)
        return (weight @ values.transpose(-1, -2)).flatten(1, 2)[:, :packed]
