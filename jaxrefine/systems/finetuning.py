"""One fine-tuning of one's own: a model and a file of examples in, a model directory out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.conversion.loaded import Placement, directory_digest
from jaxrefine.data.readers import read_candidates, read_instructions
from jaxrefine.data.readers_instructions import read_alpaca, read_tuna
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.training.finetuning import MODEL, Finetuning, finetune
from jaxrefine.training.full_size import NamedFinetuning

Format = Literal["candidates", "instructions", "alpaca", "tuna"]

READERS: dict[Format, Callable[[Path], Sequence[Any]]] = {
    "candidates": read_candidates,
    "instructions": read_instructions,
    "alpaca": read_alpaca,
    "tuna": read_tuna,
}
"""Ours, one JSON object a line: prompts with scored candidates, or with one response; Alpaca's; Tuna's released one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningJob:
    """A job; stopped at any instant, the same command goes on and ends with the same bytes."""

    model: str | None = None
    """A Hugging Face directory with its tokenizer; None is the shipped small model."""
    data: str = ""
    """What to learn from."""
    data_format: Format = "candidates"
    training: Finetuning
    placement: Placement = dataclasses.field(default_factory=Placement)

    @property
    def directory(self) -> Path:
        """Where the model is."""
        return SHIPPED if self.model is None else Path(self.model).expanduser()

    def fine_tunings(self) -> list[NamedFinetuning]:
        """The only one; four candidates a prompt, as the data are not read for it."""
        number = 1 if self.training.objective.loss is None else 4
        return [NamedFinetuning(name="train", training=self.training, num_candidates=number, model=self.model)]

    def stages(self) -> list[Stage]:
        """A look at the data, then training."""
        if not self.data:
            raise ValueError("nothing to learn from: give yours with --data FILE")
        for name, path in (("data", Path(self.data)), ("model", self.directory)):
            if not path.expanduser().exists():
                raise ValueError(f"{name}: there is no {path}")
        return [
            Stage("examples", self.look, processes="first"),
            Stage("train", self.train, inputs=("examples",), processes="all"),
        ]

    def look(self, directory: Path) -> None:
        """Reads all of the data before anything is computed, and notes what it and the model are."""
        num = len(self._examples())
        say(f"{self.data}: {num} examples")
        write_json(directory / "summary.json", {"examples": num, "model": directory_digest(self.directory)})

    def train(self, directory: Path) -> None:
        """The model, with its tokenizer and, where the scorer has one, its head."""
        input_directory(directory, "examples")
        finetune(self.directory, self._examples(), self.training, directory, placement=self.placement)
        if jax.process_index() == 0:
            say(f"model: {directory / MODEL}")

    def _examples(self) -> Sequence[Any]:
        return READERS[self.data_format](Path(self.data).expanduser())
