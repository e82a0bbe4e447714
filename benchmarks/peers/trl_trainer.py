"""What TRL's two sides share: its own training loop, stopped before each step until it is asked for.

The trainers get text, as users hand it to them, in a vocabulary of words that name their ids; what they make of it is
held against the ids that the other sides read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoTokenizer, TrainerCallback

from benchmarks.peers.worker import Case, Turns

DISTRIBUTIONS = ("trl", "transformers", "torch", "accelerate")


def text(ids: Sequence[int]) -> str:
    """Ids as words; the vocabulary is ``workload.write_tokenizer``'s."""
    return " ".join({2: "</s>"}.get(token, f"w{token}") for token in ids)


def arguments(kind: Any, case: Case, examples: int, **more: Any) -> Any:
    """The trainer's config: TRL's defaults but for what every side must share, and nothing is saved or logged away."""
    at_once = min(examples, case["at_once"])
    while examples % at_once:
        at_once -= 1  # equal microbatches: their mean is the batch's
    return kind(
        output_dir=case["scratch"],
        max_steps=1_000_000,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=examples // at_once,
        learning_rate=case["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=case["clip_norm"],
        max_length=case["prompt"] + case["response"],
        bf16=case["dtype"] == "bfloat16",
        gradient_checkpointing=case["remat"] != "none",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=case["seed"],
        **({"use_liger_kernel": True} if case["liger"] else {}),
        **more,
    )


def tokenizer(case: Case) -> Any:
    """Of the model's directory."""
    return AutoTokenizer.from_pretrained(case["model"])


class Asked(TrainerCallback):
    """Each of the trainer's steps waits for its turn."""

    def __init__(self, turns: Turns, losses: list[torch.Tensor]) -> None:
        self._turns, self._losses = turns, losses

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the forward pass; the batch is there already."""
        self._losses.clear()
        self._turns.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the optimiser's step and the clearing of gradients."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._turns.end(float(sum(self._losses)))


def train(trainer: Any, case: Case, turns: Turns) -> None:
    """The trainer's own ``train``; the loss of a step is the sum of what ``training_step`` gives for its parts."""
    losses: list[torch.Tensor] = []
    taken = trainer.training_step

    def training_step(*args: Any, **kwargs: Any) -> torch.Tensor:
        loss = taken(*args, **kwargs)
        losses.append(loss.detach())
        return loss

    trainer.training_step = training_step
    trainer.add_callback(Asked(turns, losses))
    device = "cpu"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
        turns.on_device(lambda: int(torch.cuda.max_memory_allocated()))
    args = trainer.args
    turns.ready(
        device=device,
        distributions=DISTRIBUTIONS + (("liger-kernel",) if case["liger"] else ()),
        at_once=args.per_device_train_batch_size,
        accumulated=args.gradient_accumulation_steps,
        attention=trainer.model.config._attn_implementation,
        optimizer=str(args.optim),
    )
    trainer.train()


def check(found: Sequence[Any], expected: Sequence[Any], what: str) -> None:
    """Raises ``ValueError`` where the trainer read other ids than the other sides."""
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        if list(one) != list(other):
            raise ValueError(f"{what} {number}: the trainer read {list(one)[:8]}…, the others read {list(other)[:8]}…")
