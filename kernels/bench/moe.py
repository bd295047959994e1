"""What the MoE operations cost against named peers, measured in turns in one run.

    python -m kernels.bench.moe [--rounds N] [--only TEXT]

Each line compares one operation with one peer that does the same work: they run alternately, and the ratio is the
median over the pairs, so that a slow moment of the machine meets both. Results are compared before the clock starts.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import fused_glu_mlp, grouped_mm, moe_combine, moe_dispatch, moe_route
from kernels.bench.timing import in_turns, machine
from kernels.testing import DEVICE, assert_close

DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32

Work = Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same tensors; ``agree`` is false where the works differ on purpose."""

    name: str
    ours: Work
    peer: Work
    agree: bool = True


def _random(*shape: int) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
    return x.to(DEVICE, DTYPE).requires_grad_()


def _with_gradients(y: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return y, *torch.autograd.grad(y, inputs, torch.ones_like(y))


def routing(n: int, e: int, k: int) -> Iterator[Comparison]:
    """moe_route against softmax, topk and bincount one after the other."""
    logits = _random(n, e).detach().float()

    def eager() -> tuple[Tensor, ...]:
        weight, index = logits.softmax(-1).topk(k)
        counts = torch.bincount(index.flatten(), minlength=e)
        return index, weight / weight.sum(-1, keepdim=True), counts

    yield Comparison(f"moe_route N={n} E={e} k={k} | softmax+topk+bincount", lambda: moe_route(logits, k), eager)


def permutation(n: int, d: int, e: int, k: int) -> Iterator[Comparison]:
    """Dispatch and combine, forward and backward, against argsort, indexing and index_add."""
    x, weight = _random(n, d), _random(n, k)
    index = torch.randint(0, e, (n, k), generator=torch.Generator().manual_seed(0)).to(DEVICE)

    def ours() -> tuple[Tensor, ...]:
        rows, plan = moe_dispatch(x, index, e)
        return _with_gradients(moe_combine(rows, plan, weight), [x, weight])

    def argsort() -> tuple[Tensor, ...]:
        order = index.flatten().argsort(stable=True)
        token = order // k
        y = torch.zeros_like(x).index_add(0, token, x[token] * weight.flatten()[order, None])
        return _with_gradients(y, [x, weight])

    yield Comparison(f"dispatch+combine fwd+bwd N={n} D={d} E={e} k={k} | argsort+index_add", ours, argsort)


def products(m: int, i: int, o: int, e: int) -> Iterator[Comparison]:
    """grouped_mm against a loop of torch matmuls on rows already grouped, and against one matmul of the same FLOPs.

    The load is unbalanced: the first expert has three times the rows of the last.
    """
    x, w, dense = _random(m, i), _random(e, i, o), _random(i, o)
    load = torch.linspace(3, 1, e)
    counts = torch.bincount(load.multinomial(m, True, generator=torch.Generator().manual_seed(0)), minlength=e)
    sizes, counts = counts.tolist(), counts.to(DEVICE)

    def loop() -> Tensor:
        return torch.cat([x_e @ w_e for x_e, w_e in zip(x.split(sizes), w.unbind(0), strict=True)])

    @torch.no_grad()
    def forward(product: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return (product(),)

    shape = f"M={m} {i}x{o} E={e}"
    yield Comparison(
        f"grouped_mm fwd {shape} | loop of matmuls",
        lambda: forward(lambda: grouped_mm(x, w, counts)),
        lambda: forward(loop),
    )
    yield Comparison(
        f"grouped_mm fwd {shape} | one dense matmul",
        lambda: forward(lambda: grouped_mm(x, w, counts)),
        lambda: forward(lambda: x @ dense),
        agree=False,
    )
    yield Comparison(
        f"grouped_mm fwd+bwd {shape} | loop of matmuls",
        lambda: _with_gradients(grouped_mm(x, w, counts), [x, w]),
        lambda: _with_gradients(loop(), [x, w]),
    )


def _layer_inputs(n: int, d: int, h: int, e: int) -> list[Tensor]:
    x, logits, *weights = (_random(*shape) for shape in ((n, d), (n, e), (e, d, h), (e, d, h), (e, h, d)))
    return [x, logits.detach().float().requires_grad_(), *weights]  # in 16 bits logits tie, and topk breaks ties freely


def _layer(inputs: list[Tensor], k: int) -> tuple[Tensor, ...]:
    x, logits, w_gate, w_up, w_down = inputs
    index, weight, _ = moe_route(logits, k)
    rows, plan = moe_dispatch(x, index, logits.shape[1])
    y = moe_combine(fused_glu_mlp(rows, w_gate, w_up, w_down, plan.counts), plan, weight)
    return _with_gradients(y, inputs)


def _layer_by_loop(inputs: list[Tensor], k: int) -> tuple[Tensor, ...]:
    x, logits, w_gate, w_up, w_down = inputs
    weight, index = logits.softmax(-1).topk(k)
    weight = weight / weight.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    # unbind, not w[e]: the gradient of an indexed stack is a whole stack of zeros for each expert
    for e, (gate, up, down) in enumerate(zip(w_gate.unbind(0), w_up.unbind(0), w_down.unbind(0), strict=True)):
        token, slot = torch.where(index == e)
        rows = x[token]
        out = (F.silu(rows @ gate) * (rows @ up)) @ down
        y = y.index_add(0, token, (out * weight[token, slot, None]).to(y.dtype))
    return _with_gradients(y, inputs)


def layers(n: int, d: int, h: int) -> Iterator[Comparison]:
    """A whole SwiGLU layer of top-2, forward and backward: 64 experts against the usual loop, and against 8."""
    few, many = _layer_inputs(n, d, h, 8), _layer_inputs(n, d, h, 64)
    shape = f"N={n} d={d} h={h} k=2"
    yield Comparison(f"layer {shape} E=8 | loop over experts", lambda: _layer(few, 2), lambda: _layer_by_loop(few, 2))
    yield Comparison(
        f"layer {shape} E=64 | loop over experts", lambda: _layer(many, 2), lambda: _layer_by_loop(many, 2)
    )
    if DEVICE == "cuda":
        compiled = torch.compile(_layer_by_loop)
        yield Comparison(
            f"layer {shape} E=8 | loop, torch.compile", lambda: _layer(few, 2), lambda: compiled(few, 2), agree=False
        )
    yield Comparison(
        f"layer {shape} E=64 | itself at E=8", lambda: _layer(many, 2), lambda: _layer(few, 2), agree=False
    )


def comparisons() -> Iterator[Comparison]:
    """All of them, small shapes of a laptop's model first."""
    yield from routing(4096, 8, 2)
    yield from routing(4096, 64, 8)
    yield from permutation(4096, 256, 8, 2)
    yield from permutation(4096, 256, 64, 2)
    for m, i, o, e in ((1024, 64, 128, 8), (1024, 64, 128, 64), (4096, 256, 512, 8), (4096, 256, 512, 64)):
        yield from products(m, i, o, e)
    yield from layers(128, 64, 128)
    yield from layers(2048, 64, 128)
    yield from layers(2048, 128, 256)


def measure(comparison: Comparison, rounds: int) -> tuple[float, float, float]:
    """(ours in ms, the peer in ms, ours / peer): medians over ``rounds`` pairs, after a check that both agree."""
    if comparison.agree:
        tolerance = 1e-4 if DTYPE is torch.float32 else 3e-2
        for position, (want, got) in enumerate(zip(comparison.peer(), comparison.ours(), strict=True)):
            assert_close(f"{comparison.name}, output {position}", want, got, rel=tolerance)
    return in_turns(comparison.ours, comparison.peer, rounds, DEVICE)


def main(argv: list[str] | None = None) -> None:
    """Print one line a comparison."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench.moe", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="pairs a comparison")
    parser.add_argument("--only", default="", metavar="TEXT", help="comparisons whose name contains TEXT")
    options = parser.parse_args(argv)
    print(f"{machine(DEVICE)}  {DTYPE}")
    print(f"{'ours | peer':<78}{'ours ms':>9}{'peer ms':>9}{'ratio':>7}")
    for comparison in comparisons():
        if options.only in comparison.name:
            ours, peer, ratio = measure(comparison, options.rounds)
            print(f"{comparison.name:<78}{ours:>9.3f}{peer:>9.3f}{ratio:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
