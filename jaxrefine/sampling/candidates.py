"""A model's candidates for many prompts: a record a prompt, on disk once it is done; too similar ones drawn again."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxrefine import __version__
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress, say
from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.data.examples import SAID, Candidates
from jaxrefine.data.identity import number_of
from jaxrefine.data.jsonl import write_jsonl
from jaxrefine.data.readers import read_candidates, write_candidates
from jaxrefine.data.tokenizer import Tokenizer
from jaxrefine.sampling.diversity import Diversity, choose_diverse, without_duplicates
from jaxrefine.sampling.engine import COLUMNS, Ask, Draw, Engine
from jaxrefine.sampling.generate import SLOTS, Sample
from jaxrefine.sampling.policies import Policy

JOURNAL, RECORDS, CANDIDATES = "journal.jsonl", "samples.jsonl", "candidates.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How candidates are drawn."""

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

    def __post_init__(self) -> None:
        least = {"num_candidates": 1, "max_new_tokens": 1, "slots": 1, "columns": 1}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {limit}")
        if not self.temperatures or len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures = {self.temperatures}: give at least one, each once")
        self.policies()

    def policies(self, turn: int = 0) -> tuple[Policy, ...]:
        """The policy of each candidate of a prompt, temperature by temperature, on the given try."""
        warmer = turn * self.diversity.temperature_step
        return tuple(
            Policy(temperature=temperature + warmer, top_k=self.top_k, top_p=self.top_p)
            for temperature in self.temperatures
            for _ in range(self.num_candidates)
        )


def sample_candidates(
    model: LoadedModel,
    prompts: Sequence[Candidates],
    config: SamplingConfig,
    directory: pathlib.Path,
    *,
    description: str = "",
) -> list[Candidates]:
    """Candidates of every prompt; stopped at any instant and called again, it goes on and ends with the same bytes.

    Args:
        model: a decoder with its tokenizer.
        prompts: used as they stand; ids are distinct, answers and ``meta`` are kept.
        config: how many, how warm.
        directory: gets ``samples.jsonl`` (texts with log-probs and lengths) and ``candidates.jsonl``; made if need be.
        description: beside the progress bar; empty says how many.

    Returns:
        In the order of the prompts: unlabelled candidates, ``meta["sampled"]`` says where they come from.

    Raises:
        ValueError: a prompt too long for the model, or several processes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    journal = directory / JOURNAL
    if not (directory / CANDIDATES).exists():  # else it was stopped between its last file and its manifest
        with Journal(journal) as kept:
            _sample_into(kept, model, prompts, config, description)
        found = Journal(journal).records()
        records = [found[prompt.id] for prompt in prompts]
        write_jsonl(directory / RECORDS, records)
        write_candidates(directory / CANDIDATES, map(_example, prompts, records))
    journal.unlink(missing_ok=True)  # the same records in the order in which they were done
    return read_candidates(directory / CANDIDATES)


def _sample_into(
    journal: Journal, model: LoadedModel, prompts: Sequence[Candidates], config: SamplingConfig, description: str
) -> None:
    missing = [prompt for prompt in prompts if prompt.id not in journal]
    if not missing:
        return
    tokenizer = model.tokenizer
    engine = _engine(model, config, len(prompts))
    provenance = _provenance(model.digest, config)
    description = description or f"{len(config.policies())} candidates a prompt"
    with progress(len(prompts), description, initial=len(prompts) - len(missing), unit="prompts") as bar:
        started = time.monotonic()
        ids = [_ids(prompt, tokenizer) for prompt in missing]
        for index, candidates in _diverse(engine, ids, missing, config, tokenizer):
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


def _engine(model: LoadedModel, config: SamplingConfig, num_prompts: int) -> Engine:
    """The engine of the whole job: its shapes do not depend on how much of it is done."""
    if jax.process_count() > 1:
        raise ValueError("start the processes apart, each with its --share.index, --share.count and --workdir")
    each = len(config.policies())
    return Engine(
        model.model.clone(attention="dense"),
        model.params,
        eos_ids=model.tokenizer.eos_ids,
        key=jax.random.key(config.seed),
        max_new_tokens=config.max_new_tokens,
        slots=min(config.slots, num_prompts * each),
        columns=min(config.columns, each),
        mesh=model.mesh,
    )


def _provenance(digest: str, config: SamplingConfig) -> dict[str, Any]:
    policy = {
        "temperatures": list(config.temperatures),
        "top_k": config.top_k,
        "top_p": config.top_p,
        "max_new_tokens": config.max_new_tokens,
        "diversity": dataclasses.asdict(config.diversity),
    }
    return {"model": digest, "policy": policy, "seed": config.seed, "version": __version__}


def _ids(prompt: Candidates, tokenizer: Tokenizer) -> tuple[int, ...]:
    ids = tuple(tokenizer.encode(prompt.prompt))
    bos = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
    return ids if bos and ids[:1] == bos else bos + ids


def _diverse(
    engine: Engine,
    ids: Sequence[tuple[int, ...]],
    prompts: Sequence[Candidates],
    config: SamplingConfig,
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


def _example(prompt: Candidates, record: Mapping[str, Any]) -> Candidates:
    """What judges read: unlabelled candidates, with where they come from and how likely they were."""
    found = record["candidates"]
    said = [{"logprob": one["logprob"], "tokens": one["num_tokens"]} for one in found]
    return dataclasses.replace(
        prompt,
        responses=tuple(one["text"] for one in found),
        labels=(0.0,) * len(found),
        finished=tuple(one["finished"] for one in found),
        meta={**prompt.meta, SAID: said, "sampled": record["provenance"]},
    )
