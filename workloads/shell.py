"""The model around the slots: embedding, N pre-norm blocks, head.

x = x + mixer(norm(x)); x = x + feedforward(norm(x)), with RMSNorm, for every block; then norm and head.
Shapes: B batch, T time, W width of a real-valued input, D model width, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from workloads.config import ModelConfig
from workloads.errors import ConfigError, Problem
from workloads.feedforward.options import FEEDFORWARDS
from workloads.mixers.options import MIXERS
from workloads.slots import Feedforward, LayerContext, Mixer, State
from workloads.tasks.base import Signature

INIT_STD = 0.02
NORM_EPS = 1e-5


class ModelOutput(NamedTuple):
    """What one forward pass leaves.

    logits: [B, T, O], or [B, O] where the signature reads out one vector a sequence; before any softmax.
    state: one mixer state a block; give it back to continue the sequence.
    losses: auxiliary losses, already weighted scalars, by "layer/name".
    stats: detached scalars by "layer/name".
    """

    logits: Tensor
    state: tuple[State, ...]
    losses: dict[str, Tensor]
    stats: dict[str, Tensor]


class Block(nn.Module):
    """One mixer and one feed-forward, each behind its norm and added to the stream."""

    def __init__(self, d_model: int, mixer: Mixer, feedforward: Feedforward) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(d_model, eps=NORM_EPS)
        self.mixer = mixer
        self.feedforward_norm = nn.RMSNorm(d_model, eps=NORM_EPS)
        self.feedforward = feedforward

    def forward(self, x: Tensor, state: State, context: LayerContext) -> tuple[Tensor, State]:
        """Args: x [B, T, D]. Returns (x [B, T, D], the mixer's state)."""
        mixed, state = self.mixer(self.mixer_norm(x), state)
        x = x + mixed
        return x + self.feedforward(self.feedforward_norm(x), context), state


class SequenceModel(nn.Module):
    """A task's model: `SequenceModel(model configuration, signature)`, initialised from the global torch generator.

    Embedding and head start from N(0, 0.02); the slots' modules initialise themselves.

    Raises:
        ConfigError: `tie_embeddings` where input and output are not the same classes.
    """

    def __init__(self, config: ModelConfig, signature: Signature) -> None:
        super().__init__()
        self.config, self.signature = config, signature
        d_model = config.d_model
        self.embed = _input_layer(signature, d_model)
        blocks = [_block(config, layer) for layer in range(config.n_layers)]
        _place([block.mixer for block in blocks], [block.feedforward for block in blocks])
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(d_model, eps=NORM_EPS)
        # A bias lets real-valued outputs start from the mean; classes have the softmax, which needs none
        self.head = nn.Linear(d_model, signature.outputs, bias=signature.vocab_size is None)
        nn.init.normal_(self.head.weight, std=INIT_STD)
        if config.tie_embeddings:
            self.head.weight = _shared_weight(self.embed, signature)

    def forward(
        self, inputs: Tensor, state: Sequence[State] | None = None, context: LayerContext | None = None
    ) -> ModelOutput:
        """One pass over a stretch of the sequences.

        Args:
            inputs: ids [B, T] int64, or vectors [B, T, W].
            state: of an earlier output, to continue; None for the start.
            context: a fresh one to watch this pass with; an unwatched one is made when left out.
        """
        context = LayerContext(health=False) if context is None else context
        context.num_layers, context.shape = len(self.blocks), (inputs.shape[0], inputs.shape[1])
        context.tokens = inputs if self.signature.vocab_size is not None else None
        x = self.embed(inputs)
        states: list[Any] = list(state) if state is not None else [None] * len(self.blocks)
        for layer, block in enumerate(self.blocks):
            context.layer = layer
            x, states[layer] = block(x, states[layer], context)
        logits = self.head(_read_out(self.norm(x), self.signature))
        return ModelOutput(logits, tuple(states), context.losses, context.stats)


def _read_out(x: Tensor, signature: Signature) -> Tensor:
    if signature.readout == "last":
        return x[:, -1]
    return x.mean(dim=1) if signature.readout == "mean" else x


def _input_layer(signature: Signature, d_model: int) -> nn.Module:
    if signature.vocab_size is not None:
        embedding = nn.Embedding(signature.vocab_size, d_model)
        nn.init.normal_(embedding.weight, std=INIT_STD)
        return embedding
    # torch's own initialisation, bias included: RMSNorm takes the length out of w·x, so that a scalar input would
    # reach the first mixer as its sign alone if the bias started at zero
    return nn.Linear(signature.input_width or 1, d_model)


def _block(config: ModelConfig, layer: int) -> Block:
    mixer, feedforward = _in_pattern(config.mixer, layer), _in_pattern(config.feedforward, layer)
    return Block(
        config.d_model,
        MIXERS[mixer.name].load()(config.d_model, mixer),
        FEEDFORWARDS[feedforward.name].load()(config.d_model, feedforward),
    )


def _place(mixers: list[Mixer], feedforwards: list[Feedforward]) -> None:
    for layer, (mixer, feedforward) in enumerate(zip(mixers, feedforwards, strict=True)):
        mixer.place(layer, mixers)
        feedforward.place(feedforwards, layer)


def _in_pattern(choice: Any, layer: int) -> Any:
    return choice[layer % len(choice)] if isinstance(choice, list) else choice


def _shared_weight(embed: nn.Module, signature: Signature) -> nn.Parameter:
    if not isinstance(embed, nn.Embedding) or signature.vocab_size != signature.outputs:
        ids = signature.vocab_size or "no"
        problem = f"the task has {ids} input classes and {signature.outputs} outputs; they must be equal to be shared."
        raise ConfigError([Problem(("model", "tie_embeddings"), problem, "Set it to false.")])
    return cast(nn.Parameter, embed.weight)


def count_parameters(model: nn.Module) -> int:
    """Trained numbers in the model; shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def module_device(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device
