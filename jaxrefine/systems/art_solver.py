"""ψ, the model that answers and refines: one on this machine, or one behind an endpoint."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxrefine.artefacts.stages import StageError
from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.conversion.scorer import load_scorer
from jaxrefine.data.examples import Candidates
from jaxrefine.data.groups import Refused
from jaxrefine.data.identity import number_of
from jaxrefine.data.readers import write_candidates
from jaxrefine.judging.local import PackedScorer, Rows, local_model
from jaxrefine.sampling.candidates import CANDIDATES, SamplingConfig, sample_candidates
from jaxrefine.sampling.responder import Failure, Message, Request, Responder
from jaxrefine.scoring.scorers import RewardHead, SequenceLogProb

_WORD = re.compile(r"\W*(\w+)")


@runtime_checkable
class Solver(Protocol):
    """What an ART run asks of ψ."""

    def sample(
        self, prompts: Sequence[Candidates], config: SamplingConfig, directory: pathlib.Path, *, description: str
    ) -> list[Candidates]:
        """Unlabelled candidates, as `sampling.candidates.sample_candidates` gives and keeps them."""

    def prefer(self, choices: Sequence[Candidates]) -> list[tuple[float, ...]]:
        """How much it prefers each of the words that an example offers; higher is more."""


@dataclasses.dataclass(frozen=True, eq=False)
class LocalSolver:
    """A model on this machine; it prefers the likelier word."""

    model: LoadedModel
    rows: Rows

    def sample(
        self, prompts: Sequence[Candidates], config: SamplingConfig, directory: pathlib.Path, *, description: str
    ) -> list[Candidates]:
        """Unlabelled candidates; stopped and called again, it goes on."""
        return sample_candidates(self.model, prompts, config, directory, description=description)

    def prefer(self, choices: Sequence[Candidates]) -> list[tuple[float, ...]]:
        """The log-probability of each word."""
        return log_probs(self.model, choices, self.rows)


@dataclasses.dataclass(frozen=True, eq=False)
class AskedSolver:
    """A model that is asked; it prefers the word with which its greedy reply begins.

    Args:
        responder: an endpoint, which keeps its replies: stopped and asked again, nothing is paid twice.
        chat: whether a prompt is a user's message, or a text to be gone on with.
        max_words: tokens of a reply that is one word.
    """

    responder: Responder
    chat: bool = True
    max_words: int = 8

    def sample(
        self, prompts: Sequence[Candidates], config: SamplingConfig, directory: pathlib.Path, *, description: str
    ) -> list[Candidates]:
        """Unlabelled candidates.

        Raises:
            StageError: replies that are missing; the same command goes on.
        """
        del description
        each = [
            (policy.temperature, number) for number, policy in enumerate(config.policies())
        ]  # fmt: skip
        asked = [
            self._request(
                one.prompt, config.max_new_tokens, warmth, config, number_of(f"{config.seed}/{one.id}/{number}")
            )
            for one in prompts
            for warmth, number in each
        ]
        texts = self._texts(asked)
        found = []
        for place, one in enumerate(prompts):
            replies = texts[place * len(each) : (place + 1) * len(each)]
            found.append(
                dataclasses.replace(
                    one,
                    responses=tuple(text for text, _ in replies),
                    labels=(0.0,) * len(replies),
                    finished=tuple(done for _, done in replies),
                )
            )
        directory.mkdir(parents=True, exist_ok=True)
        write_candidates(directory / CANDIDATES, found)
        return found

    def prefer(self, choices: Sequence[Candidates]) -> list[tuple[float, ...]]:
        """1 for the word that the reply begins with, 0 for the others: all 0 where it says something else.

        Raises:
            StageError: replies that are missing; the same command goes on.
        """
        texts = self._texts([self._request(one.prompt, self.max_words, 0.0, None, 0) for one in choices])
        found = []
        for one, (text, _) in zip(choices, texts, strict=True):
            match = _WORD.match(text)
            said = match[1].casefold() if match else ""
            found.append(tuple(float(said == word.casefold()) for word in one.responses))
        return found

    def _request(
        self, prompt: str, limit: int, temperature: float, config: SamplingConfig | None, seed: int
    ) -> Request:
        return Request(
            messages=(Message("user", prompt),) if self.chat else (),
            prompt=None if self.chat else prompt,
            max_tokens=limit,
            temperature=temperature,
            top_p=1.0 if config is None else config.top_p,
            seed=seed >> 1,
        )

    def _texts(self, asked: Sequence[Request]) -> list[tuple[str, bool]]:
        found = []
        for result in self.responder.respond(asked):
            if isinstance(result, Failure):
                raise StageError(f"{self.responder.name}: {result.kind}: {result.reason}; the same command goes on")
            found.append((result.text, result.finished))
        return found


def log_probs(model: LoadedModel, examples: Sequence[Candidates], rows: Rows) -> list[tuple[float, ...]]:
    """The log-probability of every response under a model, in order.

    Raises:
        ValueError: an example that cannot be scored.
    """
    scorer = PackedScorer(local_model(model), SequenceLogProb(length_power=0.0), rows, score_responses=True)
    return _in_order(scorer, examples)


def rewards(model: LoadedModel, examples: Sequence[Candidates], rows: Rows) -> list[tuple[float, ...]]:
    """The number that a model's reward head gives each response, in order.

    Raises:
        FileNotFoundError: a model without a head.
        ValueError: an example that cannot be scored.
    """
    _, head = load_scorer(model.directory)
    scorer = PackedScorer(local_model(model), RewardHead(), rows, scorer_params=head, score_responses=False)
    return _in_order(scorer, examples)


def _in_order(scorer: PackedScorer, examples: Sequence[Candidates]) -> list[tuple[float, ...]]:
    found: dict[int, tuple[float, ...]] = {}
    for index, scored in scorer(examples):
        if isinstance(scored, Refused):
            raise ValueError(f"{examples[index].id!r} cannot be scored: {scored.reason}")
        found[index] = tuple(map(float, scored.scores))
    return [found[index] for index in range(len(examples))]
