"""PandaLM: a judge trained on a teacher's verdicts, and a search over settings of a fine-tuning that it judges.

Its stages are bases, responses, records, judge, agreement, trials, answers, tournament, harness (where lm-eval is
asked), report.

Source: PandaLM, arXiv:2306.05087.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.artefacts.stages import Stage
from jaxrefine.conversion.loaded import Placement, directory_digest
from jaxrefine.conversion.pretrained import TOKENIZER_FILES, decoder_config, save_pretrained
from jaxrefine.data.tasks import TaskSource
from jaxrefine.data.tokenizer import load_tokenizer
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.families import family_of
from jaxrefine.models.weights import Family
from jaxrefine.systems.pandalm_judge import JudgeConfig, JudgeStages
from jaxrefine.systems.pandalm_search import MODELS, SearchConfig, SearchStages
from jaxrefine.training.finetuning import Finetuning, finetune
from jaxrefine.training.full_size import NamedFinetuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """A base model: one that is there, or a small new one that is trained here.

    Raises:
        ValueError: a new model without training, or training of one that is there.
    """

    name: str
    """Of the directory of its trials, and in tables."""
    model: str
    """A Hugging Face directory; of a new model, where its tokenizer is."""
    attributes: Mapping[str, int | float | str | bool] = dataclasses.field(default_factory=dict)
    """``config.json`` of a new model of any family, ``model_type`` among them, without ``vocab_size``."""
    pretraining: Finetuning | None = None
    """Of a new model, on ``pretraining_tasks``."""

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("/\\"):
            raise ValueError(f"a base model's name is that of a directory; {self.name!r} cannot be")
        if bool(self.attributes) != (self.pretraining is not None):
            raise ValueError(f"base {self.name!r}: attributes and pretraining are a new model's: give both or none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PandaLM:
    """All of it, or as much as is asked for; stopped at any instant, the same command goes on."""

    bases: tuple[Base, ...]
    pretraining_tasks: TaskSource | None = None
    """What new base models are trained on."""
    judge: JudgeConfig
    search: SearchConfig | None = None
    """None ends with the judge."""
    placement: Placement = dataclasses.field(default_factory=Placement)
    seed: int = 0
    """Of the parameters of new base models."""
    title: str = "A search judged by a trained judge"

    def __post_init__(self) -> None:
        names = [base.name for base in self.bases]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two base models are called {repeated[0]!r}")
        if any(base.attributes for base in self.bases) and self.pretraining_tasks is None:
            raise ValueError("new base models are trained on pretraining_tasks, and there are none")

    def fine_tunings(self) -> list[NamedFinetuning]:
        """Of the judge, and of every base model in the search and before it."""
        found = [("judge", self.judge.training, self.judge.start or self.judge.model or None)]
        for base in self.bases:
            each = (
                ("pretraining", base.pretraining),
                ("tuning", self.judge.tuning),
                ("search", self.search.default if self.search is not None else None),
            )
            found += [(f"{base.name}: {what}", training, base.model) for what, training in each if training is not None]
        return [
            NamedFinetuning(name=name, training=training, num_candidates=1, model=model)
            for name, training, model in found
        ]

    def stages(self) -> list[Stage]:
        """Base models, then the judge's stages unless it is there, then those of the search."""
        for number, base in enumerate(self.bases):
            if not (base.model and pathlib.Path(base.model).expanduser().is_dir()):
                flag = f"--bases.{number}.model DIRECTORY"
                raise ValueError(f"there is no directory {base.model!r} for {base.name}; give yours with {flag}")
        self.judge.check()
        names = tuple(base.name for base in self.bases)
        stages = JudgeStages(self.judge, names, self.placement).stages()
        if self.search is not None:
            self.search.check()
            stages += SearchStages(self.search, self.judge, names, self.placement, self.title).stages()
        first = [Stage("bases", self.make_bases)] if any("bases" in stage.inputs for stage in stages) else []
        if not stages:
            raise ValueError("nothing to do: a judge is given, and no search")
        return first + stages

    def make_bases(self, directory: pathlib.Path) -> None:
        """Trains the new base models; notes where all are, and what they hold."""
        where = {}
        for number, base in enumerate(self.bases):
            where[base.name] = pathlib.Path(base.model).expanduser().resolve()
            if base.pretraining is not None and self.pretraining_tasks is not None:
                fresh = directory / base.name / "fresh"
                if not (fresh / "config.json").is_file():
                    new_model(where[base.name], base.attributes, fresh, seed=self.seed + number)
                where[base.name] = finetune(
                    fresh, self.pretraining_tasks.read(), base.pretraining, directory / base.name,
                    placement=self.placement, description=f"{base.name}, pre-training",
                )  # fmt: skip
        write_json(directory / "digests.json", {name: directory_digest(path) for name, path in where.items()})
        inside = {name for name, path in where.items() if directory in path.parents}  # these move with the run
        write_json(
            directory / MODELS,
            {name: str(path.relative_to(directory) if name in inside else path) for name, path in where.items()},
        )


def new_config(
    tokenizer: pathlib.Path, attributes: Mapping[str, int | float | str | bool]
) -> tuple[Family, TransformerConfig, dict[str, Any]]:
    """The family of a new model, its config with the tokenizer's vocabulary, and what else ``config.json`` says."""
    words = load_tokenizer(tokenizer)
    ids = {"bos_token_id": words.bos_id, "eos_token_id": words.eos_id, "pad_token_id": words.pad_id}
    whole = {**attributes, **ids, "vocab_size": words.vocab_size}
    family = family_of(attributes.get("model_type"), "attributes")
    return family, decoder_config(family, whole, "attributes"), family.extra(whole)


def new_model(
    tokenizer: pathlib.Path, attributes: Mapping[str, int | float | str | bool], directory: pathlib.Path, *, seed: int
) -> None:
    """A model of any family with new parameters, as a Hugging Face directory.

    Args:
        tokenizer: the directory that its tokenizer is copied from.
        attributes: ``config.json`` without ``vocab_size`` and the tokenizer's ids.
        directory: where to.
        seed: of the parameters.

    Raises:
        ValueError: attributes that the family lacks or does not know.
    """
    family, config, extra = new_config(tokenizer, attributes)
    decoder = Decoder(config, attention="dense")
    row = jax.numpy.zeros((1, 1), jax.numpy.int32)
    params = jax.jit(lambda key: decoder.init(key, row, row, row + 1, method="trunk"))(jax.random.key(seed))["params"]
    directory.parent.mkdir(parents=True, exist_ok=True)
    save_pretrained(directory, config, params, extra=extra, family=family.model_type)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, directory / name)
