"""What small deciders cost beside fine-tuning the large model: tokens and model FLOPs, role by role.

Counted from the lengths of what was really trained on and generated: `models.flops` has the formulas. Prompts are
computed once for their candidates, as everywhere here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.flops import Work, forward_flops, generation_work, num_params, train_flops

Phase = Literal["training", "inference"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long the prompts and responses of some job are, in tokens."""

    prompts: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    """Of each prompt's candidates."""

    def __post_init__(self) -> None:
        """Refuses prompts without their responses."""
        if len(self.prompts) != len(self.responses):
            raise ValueError(f"{len(self.prompts)} prompts need as many lists of responses, got {len(self.responses)}")

    @property
    def tokens(self) -> int:
        """Read and written, prompts once."""
        return sum(self.prompts) + self.num_responses

    @property
    def num_responses(self) -> int:
        """Tokens of all responses."""
        return sum(map(sum, self.responses))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What one role costs in one phase."""

    role: str
    """Such as "Asker (7B)"."""
    phase: Phase
    params: int
    """Of the model."""
    tokens: int
    """That pass through it."""
    flops: int


def reading_work(lengths: Lengths, *, scored: bool, window: int | None = None) -> Work:
    """The work of reading prompts with their responses, each prompt once.

    tokens P + Σ R;  pairs P (P + 1) / 2 + Σ (R P + R (R + 1) / 2);  the head for Σ R where log-probs are wanted.

    Args:
        lengths: of prompts and responses.
        scored: whether log-probs of the responses are wanted (a likelihood) or not (a reward head).
        window: the config's.

    Raises:
        ValueError: the config has a window: pairs near each other are not counted here.

    >>> reading_work(Lengths(prompts=(3,), responses=((2, 1),)), scored=True)  # pairs: 6 + (6 + 3) + (3 + 1)
    Work(tokens=6, scored=3, pairs=19, near=None)
    """
    if window is not None:
        raise ValueError(f"the config has a window of {window} positions: count the work of its batches (batch_work)")
    pairs = 0
    for P, responses in zip(lengths.prompts, lengths.responses, strict=True):
        pairs += P * (P + 1) // 2 + sum(R * P + R * (R + 1) // 2 for R in responses)
    return Work(tokens=lengths.tokens, scored=lengths.num_responses if scored else 0, pairs=pairs)


def training_cost(
    role: str, config: TransformerConfig, lengths: Lengths, *, epochs: float = 1.0, scored: bool = True
) -> Cost:
    """The cost of training on some data: three forward passes.

    Args:
        role: whose.
        config: the model.
        lengths: of the data, once.
        epochs: how often it is read.
        scored: whether a likelihood is trained (or a reward head).

    >>> config = TransformerConfig(vocab_size=10, width=4, num_layers=1, num_heads=2, num_kv_heads=1, head_width=2,
    ...                            hidden_width=8)
    >>> training_cost("Truster", config, Lengths(prompts=(1,), responses=((1,),)), epochs=2, scored=False).flops
    3744
    """
    work = reading_work(lengths, scored=scored, window=config.window)
    return Cost(
        role=role,
        phase="training",
        params=num_params(config),
        tokens=round(epochs * lengths.tokens),
        flops=round(epochs * train_flops(config, work)),
    )


def generation_cost(role: str, config: TransformerConfig, lengths: Lengths, *, phase: Phase = "inference") -> Cost:
    """The cost of generating responses; in the phase "training" for samples that are labelled."""
    work = generation_work(lengths.prompts, lengths.responses, window=config.window)
    return Cost(
        role=role, phase=phase, params=num_params(config), tokens=lengths.tokens, flops=forward_flops(config, work)
    )


def scoring_cost(role: str, config: TransformerConfig, lengths: Lengths, *, scored: bool = False) -> Cost:
    """The cost of reading responses to score them: with a head at the last token, or by their log-probs."""
    work = reading_work(lengths, scored=scored, window=config.window)
    return Cost(
        role=role, phase="inference", params=num_params(config), tokens=lengths.tokens,
        flops=forward_flops(config, work),
    )  # fmt: skip


def together(role: str, costs: Sequence[Cost]) -> Cost:
    """Several costs of one phase as one row; the parameters are those of the largest model.

    Raises:
        ValueError: no costs, or those of two phases.
    """
    phases = {cost.phase for cost in costs}
    if len(phases) != 1:
        raise ValueError(f"{role}: costs of one phase are added, got {sorted(phases) or 'none'}")
    return Cost(
        role=role,
        phase=phases.pop(),
        params=max(cost.params for cost in costs),
        tokens=sum(cost.tokens for cost in costs),
        flops=sum(cost.flops for cost in costs),
    )
