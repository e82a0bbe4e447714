"""The comparison of loss variants: train each from the same weights on the same batches, and measure them alike.

    prompts ─ candidates ─ base ─ reference ─ variants ─ report

Each seed draws its own candidates for the training prompts, its order of them and its new heads, alike for all
variants; every variant starts from the same weights and sees the same groups in each step. What is ranked and
re-ranked is one set of base samples of the held-out prompts, common to all.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from jaxrefine.artefacts.stages import Stage
from jaxrefine.conversion.apply import abstract_params
from jaxrefine.conversion.pretrained import load_config
from jaxrefine.data.templates import TEMPLATES, VERDICT_WORDS
from jaxrefine.evaluation import variant_stages
from jaxrefine.evaluation.variant_settings import Settings, Variant
from jaxrefine.models.lora import adapted_maps

__all__ = ["LossVariants", "Variant"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossVariants(Settings):
    """A comparison of loss variants that can be run."""

    def stages(self) -> list[Stage]:
        """The stages of the comparison.

        Raises:
            ValueError: the model directory or the file of candidates is not there, the model is too short, or it has no
                map of the names that are to be adapted.
        """
        if not (self.directory / "config.json").is_file():
            raise ValueError(f"model: {self.directory} holds no config.json; a Hugging Face model directory is wanted")
        if self.candidates is not None and not Path(self.candidates).expanduser().is_file():
            raise ValueError(f"candidates: there is no file {self.candidates}; give yours with --candidates FILE")
        config, _ = load_config(self.directory)
        room = config.max_positions - len(f"{TEMPLATES['verdict'].text}{VERDICT_WORDS[1]}".encode())
        if self.lengths.prompt + self.lengths.response > room:
            raise ValueError(
                f"lengths.prompt = {self.lengths.prompt} and lengths.response = {self.lengths.response} with a verdict "
                f"need more than the {config.max_positions} positions of {self.directory}: together at most {room}"
            )
        if self.tuning.parameters == "adapters":
            adapted_maps(abstract_params(config), self.tuning.lora)
        bound = lambda function: functools.partial(function, self)  # noqa: E731
        return [
            Stage("prompts", bound(variant_stages.prompts)),
            Stage("candidates", bound(variant_stages.candidates), ("prompts",)),
            Stage("base", bound(variant_stages.base), ("prompts",)),
            Stage("reference", bound(variant_stages.reference), ("prompts", "candidates", "base")),
            Stage("variants", bound(variant_stages.variants), ("prompts", "candidates", "base", "reference")),
            Stage("report", bound(variant_stages.report), ("base", "reference", "variants")),
        ]
