"""Candidates from a model on this machine: a file of prompts in, a record a prompt out, on disk once it is done."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrefine import __version__
from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress, say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.arithmetic import generate
from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import write_jsonl
from jaxrefine.data.readers import read_prompts, write_candidates
from jaxrefine.data.tokenizer import Tokenizer, load_tokenizer
from jaxrefine.evaluation.variant_base import directory_digest
from jaxrefine.evaluation.variant_data import number_of
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.diversity import Diversity, choose_diverse, without_duplicates
from jaxrefine.sampling.engine import COLUMNS, Ask, Draw, Engine
from jaxrefine.sampling.generate import SLOTS, Sample
from jaxrefine.sampling.policies import Policy
from jaxrefine.sharding import MeshConfig, make_mesh

PROMPTS, MODEL, JOURNAL, RECORDS, CANDIDATES = (
    "prompts.jsonl",
    "model.json",
    "journal.jsonl",
    "samples.jsonl",
    "candidates.jsonl",
)


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
class LocalSampling:
    """A job; stopped at any instant, the same command goes on and ends with the same bytes."""

    model: str | None = None
    """A Hugging Face directory of a decoder with its tokenizer; None is the shipped small model."""
    prompts: str | None = None
    """A ``.jsonl`` file, ``{"id": "1", "prompt": "…"}`` a line, used as it stands; ``answer`` and ``meta`` are kept.
    None takes ``num_problems`` word problems of the arithmetic world."""
    num_problems: int = 16
    num_candidates: int = 4
    """A prompt and temperature."""
    temperatures: tuple[float, ...] = (1.0,)
    """0 is greedy: all its candidates are the same text."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    max_new_tokens: int = 96
    diversity: Diversity = dataclasses.field(default_factory=Diversity)
    seed: int = 0
    """A text depends on it, on its prompt's id, on its number and its temperature alone."""
    slots: int = SLOTS
    """Candidates that grow at once."""
    columns: int = COLUMNS
    """Of them, those that share a prompt."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation: fp32 on CPU, else bf16."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    num_devices: int | None = None
    """How many of the devices that are there; None is all."""
    share: Share = dataclasses.field(default_factory=Share)
    """Of several processes, each with a work directory of its own."""

    def __post_init__(self) -> None:
        least = {"num_candidates": 1, "num_problems": 1, "max_new_tokens": 1, "slots": 1, "columns": 1}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {limit}")
        if not self.temperatures or len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures = {self.temperatures}: give at least one, each once")
        self.policies()

    @property
    def directory(self) -> pathlib.Path:
        """Where the model is."""
        return SHIPPED if self.model is None else pathlib.Path(self.model).expanduser()

    def policies(self, turn: int = 0) -> tuple[Policy, ...]:
        """The policy of each candidate of a prompt, temperature by temperature, on the given try."""
        warmer = turn * self.diversity.temperature_step
        return tuple(
            Policy(temperature=temperature + warmer, top_k=self.top_k, top_p=self.top_p)
            for temperature in self.temperatures
            for _ in range(self.num_candidates)
        )

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
            found = read_prompts(self.prompts)
        write_candidates(directory / PROMPTS, self.share.of(found))
        write_json(directory / MODEL, {"directory": str(self.directory), "digest": directory_digest(self.directory)})

    def sample(self, directory: pathlib.Path) -> None:
        """Samples what is not there yet; writes ``samples.jsonl`` and, for judges, ``candidates.jsonl``."""
        journal = directory / JOURNAL
        if not (directory / CANDIDATES).exists():  # else it was stopped between its last file and its manifest
            given = input_directory(directory, "prompts")
            prompts, model = read_prompts(given / PROMPTS), read_json(given / MODEL)
            if directory_digest(self.directory) != model["digest"]:
                raise ValueError(f"{self.directory} changed since the run began; use another --workdir")
            with Journal(journal) as kept:
                self._sample_into(kept, prompts, model["digest"])
            found = Journal(journal).records()
            records = [found[prompt.id] for prompt in prompts]
            write_jsonl(directory / RECORDS, records)
            write_candidates(directory / CANDIDATES, map(_example, prompts, records))
        journal.unlink(missing_ok=True)  # the same records in the order in which they were done

    def _sample_into(self, journal: Journal, prompts: Sequence[Candidates], digest: str) -> None:
        missing = [prompt for prompt in prompts if prompt.id not in journal]
        if not missing:
            return
        tokenizer = load_tokenizer(self.directory)
        engine = self._engine(tokenizer, len(prompts))
        provenance = self._provenance(digest)
        description = f"{len(self.policies())} candidates a prompt"
        with progress(len(prompts), description, initial=len(prompts) - len(missing), unit="prompts") as bar:
            started = time.monotonic()
            for index, candidates in _diverse(
                engine, [_ids(prompt, tokenizer) for prompt in missing], missing, self, tokenizer
            ):
                prompt = missing[index]
                record = {"id": prompt.id, "prompt": prompt.prompt, "candidates": candidates, "provenance": provenance}
                if prompt.answer is not None:
                    record["answer"] = prompt.answer
                if prompt.meta:
                    record["meta"] = dict(prompt.meta)
                journal.append(prompt.id, record)
                rate = engine.counts.tokens / (time.monotonic() - started)
                bar.advance(1, **{"tokens/s": round(rate)})
        counts = engine.counts
        used = counts.tokens / max(1, counts.steps * engine.rows * engine.columns)
        say(f"{counts.texts} texts of {counts.tokens} tokens; {used:.0%} of the slots were in use, step for step")

    def _engine(self, tokenizer: Tokenizer, num_prompts: int) -> Engine:
        """The engine of the whole job: its shapes do not depend on how much of it is done."""
        if jax.process_count() > 1:
            raise ValueError("start the processes apart, each with its --share.index, --share.count and --workdir")
        mesh = make_mesh(self.mesh, jax.devices()[: self.num_devices])
        dtype = self.dtype
        if dtype == "auto":
            dtype = "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"
        config, params = load_pretrained(self.directory, mesh=mesh)
        each = len(self.policies())
        return Engine(
            Decoder(config, dtype=jnp.dtype(dtype), attention="dense"),
            params,
            eos_ids=tokenizer.eos_ids,
            key=jax.random.key(self.seed),
            max_new_tokens=self.max_new_tokens,
            slots=min(self.slots, num_prompts * each),
            columns=min(self.columns, each),
            mesh=mesh,
        )

    def _provenance(self, digest: str) -> dict[str, Any]:
        policy = {
            "temperatures": list(self.temperatures),
            "top_k": self.top_k,
            "top_p": self.top_p,
            "max_new_tokens": self.max_new_tokens,
            "diversity": dataclasses.asdict(self.diversity),
        }
        return {"model": digest, "policy": policy, "seed": self.seed, "version": __version__}


def _ids(prompt: Candidates, tokenizer: Tokenizer) -> tuple[int, ...]:
    ids = tuple(tokenizer.encode(prompt.prompt))
    bos = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
    return ids if bos and ids[:1] == bos else bos + ids


def _diverse(
    engine: Engine,
    ids: Sequence[tuple[int, ...]],
    prompts: Sequence[Candidates],
    config: LocalSampling,
    tokenizer: Tokenizer,
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(index of a prompt, its candidates) as each is done, with those drawn again that were too similar."""
    num = len(config.policies())
    owners: dict[int, tuple[int, tuple[int, ...]]] = {}
    draws: dict[int, list[list[tuple[Sample, str, float]]]] = {}

    def ask(index: int, wanted: tuple[int, ...], turn: int) -> None:
        policies = config.policies(turn)
        numbered = tuple(Draw(n + turn * num, policies[n]) for n in wanted)
        asked = Ask(id=number_of(prompts[index].id), prompt=ids[index], draws=numbered)
        try:
            owners[engine.add(asked)] = index, wanted
        except ValueError as error:
            raise ValueError(f"prompt {prompts[index].id!r}: {error}") from error

    for index in range(len(prompts)):
        draws[index] = [[] for _ in range(num)]
        ask(index, tuple(range(num)), 0)
    for ticket, samples in engine.finished():
        index, wanted = owners.pop(ticket)
        turn = len(draws[index][wanted[0]])
        policies = config.policies(turn)
        for n, sample in zip(wanted, samples, strict=True):
            draws[index][n].append((sample, tokenizer.decode(sample.content), policies[n].temperature))
        choice = choose_diverse([[text for _, text, _ in drawn] for drawn in draws[index]], config.diversity)
        if choice.again:
            ask(index, choice.again, turn + 1)
            continue
        found = [drawn[kept or 0] for drawn, kept in zip(draws.pop(index), choice.kept, strict=True)]
        if config.diversity.drop_duplicates:
            found = [found[n] for n in without_duplicates([text for _, text, _ in found])]
        yield index, [_candidate(*one) for one in found]


def _candidate(sample: Sample, text: str, temperature: float) -> dict[str, Any]:
    return {
        "text": text,
        "logprob": math.fsum(sample.logprobs),
        "num_tokens": len(sample.tokens),
        "finished": sample.finished,
        "temperature": temperature,
    }


def _example(prompt: Candidates, record: dict[str, Any]) -> Candidates:
    """What judges read: unlabelled candidates, with where they come from."""
    found = record["candidates"]
    return dataclasses.replace(
        prompt,
        responses=tuple(one["text"] for one in found),
        labels=(0.0,) * len(found),
        finished=tuple(one["finished"] for one in found),
        meta={**prompt.meta, "sampled": record["provenance"]},
    )
