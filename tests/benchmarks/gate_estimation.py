"""How fast the parameters of a dense gate can be learned from n examples: with a temperature, and with a non-linearity.

    python -m tests.benchmarks.gate_estimation [--repeats 20] [--experts 2]

Data come from a mixture of two linear experts with Gaussian noise behind the gate; the same model, or one with more
experts, is fitted by maximum likelihood from near the truth. Printed is the slope of log error over log n. The theory
(arXiv:2401.13875) has -1/2 for the density under both gates; for the gate's parameters -1/2 behind the non-linearity,
and next to nothing where a temperature may trade with the weights. With more experts than two, an expert's parameters
that share one true expert have -1/4 behind the non-linearity.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from torch import Tensor, nn

from workloads import build_router

SIZES = (200, 600, 2000, 6000, 20_000)
GATES = {
    "temperature": ("temperature_dense_to_sparse", {"mode": "learned", "threshold": 0.0}),
    "non-linearity (gelu)": ("activation_dense_to_sparse", {"activation": "gelu", "threshold": 0.0}),
}
START = 0.3
"""Standard deviation of the starts about the truth."""


class Mixture(nn.Module):
    """p(y | x) = Σ_e g_e(x) N(y; a_e x + b_e, s_e²) behind one of the zoo's gates; x and y [N]."""

    def __init__(self, gate: str, num_experts: int) -> None:
        super().__init__()
        name, options = GATES[gate]
        self.gate = build_router(name, 1, num_experts, **options)
        self.slope, self.offset, self.log_std = (nn.Parameter(torch.zeros(num_experts)) for _ in range(3))
        self.double()

    def log_density(self, x: Tensor, y: Tensor) -> Tensor:
        """[N]."""
        g = self.gate(x[:, None]).weight.view(len(x), -1)
        experts = torch.distributions.Normal(x[:, None] * self.slope + self.offset, self.log_std.exp())
        return (g.log() + experts.log_prob(y[:, None])).logsumexp(-1)

    def gate_parameters(self) -> Tensor:
        """What can be told apart: weights, differences of biases, and the temperature where there is one."""
        weight, bias = self.gate.gate.weight.detach().flatten(), self.gate.gate.bias.detach()
        temperature = getattr(self.gate, "log_temperature", None)
        if temperature is None:
            return torch.cat([weight, bias[1:] - bias[0]])
        return torch.cat([weight[1:] - weight[0], bias[1:] - bias[0], temperature.detach().exp()[None]])


def truth(gate: str) -> Mixture:
    """Two experts that cross."""
    model = Mixture(gate, 2)
    with torch.no_grad():
        model.gate.gate.weight.copy_(torch.tensor([[1.0], [-0.8]]))
        model.gate.gate.bias.copy_(torch.tensor([0.3, -0.3]))
        model.slope.copy_(torch.tensor([2.0, -1.5]))
        model.offset.copy_(torch.tensor([0.5, -0.5]))
        model.log_std.fill_(math.log(0.4))
    return model


@torch.no_grad()
def sample(model: Mixture, n: int) -> tuple[Tensor, Tensor]:
    """x uniform on [-3, 3], y drawn."""
    x = 6 * torch.rand(n, dtype=torch.float64) - 3
    expert = torch.multinomial(model.gate(x[:, None]).weight.view(n, -1), 1)[:, 0]
    return x, x * model.slope[expert] + model.offset[expert] + model.log_std.exp()[expert] * torch.randn_like(x)


def fit(true: Mixture, gate: str, num_experts: int, x: Tensor, y: Tensor) -> Mixture:
    """Maximum likelihood by L-BFGS from near the truth; experts beyond the second start near the first."""
    model = Mixture(gate, num_experts)
    origin = torch.arange(num_experts) % 2
    with torch.no_grad():
        for ours, theirs in zip(model.parameters(), true.parameters(), strict=True):
            value = theirs[origin] if theirs.ndim else theirs
            ours.copy_(value + START * torch.randn_like(value))
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=300, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -model.log_density(x, y).mean()
        value.backward()
        return value

    optimizer.step(loss)
    return model


@torch.no_grad()
def errors(model: Mixture, true: Mixture) -> dict[str, float]:
    """density: mean |p̂ − p| over a grid; gate: norm of the error, for equal numbers; experts: of slopes, on average."""
    x, y = (axis.flatten() for axis in torch.meshgrid(*(torch.linspace(-3, 3, 60).double(),) * 2, indexing="ij"))
    density = (model.log_density(x, 2 * y).exp() - true.log_density(x, 2 * y).exp()).abs().mean()
    nearest = (model.slope[:, None] - true.slope).abs().min(1).values
    found = {"density": float(density), "experts": float(nearest.mean())}
    if len(model.slope) == len(true.slope):
        found["gate"] = float((model.gate_parameters() - true.gate_parameters()).norm())
    return found


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--experts", type=int, default=2)
    arguments = parser.parse_args()
    for gate in GATES:
        torch.manual_seed(0)
        true = truth(gate)
        medians = []
        for n in SIZES:
            fits = [fit(true, gate, arguments.experts, *sample(true, n)) for _ in range(arguments.repeats)]
            found = [errors(model, true) for model in fits]
            medians.append({part: float(np.median([each[part] for each in found])) for part in found[0]})
            print(f"{gate}, n = {n}: " + ", ".join(f"{part} {value:.4f}" for part, value in medians[-1].items()))
        for part in medians[0]:
            slope = np.polyfit(np.log(SIZES), np.log([each[part] for each in medians]), 1)[0]
            print(f"{gate}: {part} falls as n^{slope:+.2f}")
        print()


if __name__ == "__main__":
    main()
