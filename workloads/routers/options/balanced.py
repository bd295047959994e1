"""Options of DeepSeek's routers: fine-grained and shared experts, balancing without a loss. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class DeepSeekMoE:
    """Many narrow experts, some of them shared: y = Σ_{s < K_s} F_s(x) + Σ_{e in top-k of p} p_e F_e(x).

    p = softmax over the routed experts alone, not renormalised. Splitting each of N experts into m gives
    num_experts = m N and k = m K − shared, at equal parameters and FLOPs, since the default expert width divides by
    k + shared. Shared experts come first and take no part in the choice. Losses: expert level α1 Σ f_e p̄_e with
    f_e = E/(k N) count_e; device level α2 Σ_i (mean f of group i)(Σ p̄ of group i). N·(k + shared) assignments.
    """

    name: Literal["deepseek_moe"] = "deepseek_moe"
    shared: int = option(1, "Shared experts K_s; at least one expert stays routed.", ge=0, sweep=[0, 1, 2, 4])
    k: int = option(
        3,
        "Routed experts a token; all where there are fewer. Shared to routed 1:3 is the paper's advice.",
        ge=1,
        sweep=[3, 7],
    )
    expert_balance: float = option(0.01, "Weight α1 of the expert-level loss.", ge=0, sweep=[0.001, 0.003, 0.01])
    device_balance: float = option(0.0, "Weight α2 of the device-level loss.", ge=0, sweep=[0.0, 0.05])
    devices: int = option(1, "Groups of routed experts for the device-level loss.", ge=1)


@options
class LossFree:
    """Top-k of s + b, weights s without b; after each step b_e += u · sign(mean load − load_e).

    No loss, and no gradient in b. s = σ(W x) (or softmax). Loads are counted over the whole optimiser step and all
    workers. b is a buffer, frozen in evaluation. With groups > 1 only the `keep_groups` groups with the best sums of
    their two largest s + b take part. N·k assignments. `sequence_weight` adds DeepSeek-V3's balance loss inside each
    sequence.
    """

    name: Literal["loss_free"] = "loss_free"
    k: int = option(2, "Experts a token; all of them where there are fewer.", ge=1, sweep=[1, 2, 4, 8])
    update_rate: float = option(
        1e-3, "Step u of the bias; runs below 5000 steps want 3e-3 to 1e-2.", ge=0, sweep=[1e-4, 1e-3, 3e-3, 1e-2]
    )
    score: Literal["sigmoid", "softmax"] = option("sigmoid", "Gate function.", sweep=["sigmoid", "softmax"])
    renormalize: bool = option(
        False, "Divide the kept scores by their sum (DeepSeek-V3); never at k = 1.", sweep=[False, True]
    )
    scale: float = option(1.0, "Factor on the weights; 2.5 in DeepSeek-V3.", gt=0)
    groups: int = option(1, "Groups of experts; must divide E.", ge=1)
    keep_groups: int = option(1, "Groups that a token may use.", ge=1)
    sequence_weight: float = option(0.0, "Weight of the sequence-wise balance loss.", ge=0, sweep=[0.0, 1e-4])
    freeze: float = option(0.0, "Last share of the training in which the bias rests.", ge=0, le=1)


METHODS = (
    Method(DeepSeekMoE, "workloads.routers.balanced:DeepSeekMoE", "DeepSeekMoE, arXiv:2401.06066, sec. 3"),
    Method(
        LossFree,
        "workloads.routers.balanced:LossFree",
        "Loss-free balancing, arXiv:2408.15664, alg. 1; DeepSeek-V3, arXiv:2412.19437, sec. 2.1.2",
    ),
)
