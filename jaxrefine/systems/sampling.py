"""Candidates from a model on this machine: a file of prompts in, a record a prompt out, on disk once it is done."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.conversion.loaded import DType, Placement, directory_digest, load_model
from jaxrefine.data.arithmetic import generate
from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import set_aside
from jaxrefine.data.readers import read_prompts, write_candidates
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.sampling.candidates import SamplingConfig, sample_candidates
from jaxrefine.sharding import MeshConfig

PROMPTS, MODEL = "prompts.jsonl", "model.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of the prompts a process takes; the parts' records one after the other are those of one process.

    Raises:
      ValueError: an index that is not below the count.

    >>> [Share(index=i, count=3).of(range(8)) for i in range(3)]
    [range(0, 2), range(2, 5), range(5, 8)]
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"share.index = {self.index} must be 0 … share.count - 1 = {self.count - 1}")

    def of(self, items: Sequence[Any]) -> Sequence[Any]:
        """The part: consecutive items, as many as the other parts have or one more or less."""
        return items[len(items) * self.index // self.count : len(items) * (self.index + 1) // self.count]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalSampling(SamplingConfig):
    """A job; stopped at any instant, the same command goes on and ends with the same bytes."""

    model: str | None = None
    """A Hugging Face directory of a decoder with its tokenizer; None is the shipped small model."""
    prompts: str | None = None
    """A ``.jsonl`` file, ``{"id": "1", "prompt": "…"}`` a line, used as it stands; ``answer`` and ``meta`` are kept.
    None takes ``num_problems`` word problems of the arithmetic world."""
    max_bad_lines: int = 0
    """Malformed lines of ``prompts`` set aside, with where and why, in ``rejects.jsonl``; more stop the job."""
    num_problems: int = 16
    dtype: DType = "auto"
    """Of the computation: fp32 on CPU, else bf16."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    num_devices: int | None = None
    """How many of the devices that are there; None is all."""
    share: Share = dataclasses.field(default_factory=Share)
    """Of several processes, each with a work directory of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_problems < 1:
            raise ValueError(f"num_problems = {self.num_problems} must be at least 1")

    @property
    def directory(self) -> pathlib.Path:
        """Where the model is."""
        return SHIPPED if self.model is None else pathlib.Path(self.model).expanduser()

    def stages(self) -> list[Stage]:
        """Prompts, samples."""
        if self.prompts is not None and not pathlib.Path(self.prompts).is_file():
            raise ValueError(f"prompts: there is no file {self.prompts}; give yours with --prompts FILE")
        return [Stage("prompts", self.check_prompts), Stage("samples", self.sample, inputs=("prompts",))]

    def check_prompts(self, directory: pathlib.Path) -> None:
        """Reads the prompts of this share before anything is computed, and keeps them with the model's digest."""
        if self.prompts is None:
            found = [
                Candidates(p.id, p.instruction().prompt, answer=str(p.answer))
                for p in generate("test", self.num_problems, self.seed)
            ]
        else:
            found = read_prompts(self.prompts, **set_aside(directory, self.max_bad_lines))
        write_candidates(directory / PROMPTS, self.share.of(found))
        write_json(directory / MODEL, {"directory": str(self.directory), "digest": directory_digest(self.directory)})

    def sample(self, directory: pathlib.Path) -> None:
        """Samples what is not there yet; writes ``samples.jsonl`` and, for judges, ``candidates.jsonl``."""
        given = input_directory(directory, "prompts")
        if directory_digest(self.directory) != read_json(given / MODEL)["digest"]:
            raise ValueError(f"{self.directory} changed since the run began; use another --workdir")
        placement = Placement(dtype=self.dtype, mesh=self.mesh, num_devices=self.num_devices, attention="dense")
        model = load_model(self.directory, placement)
        sample_candidates(model, read_prompts(given / PROMPTS), self, directory)
