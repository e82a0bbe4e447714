"""What an ART run comes to: answers and signals of every test problem, and what each role cost."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Sequence

from jaxrefine.artefacts.atomic import read_json
from jaxrefine.artefacts.stages import input_directory
from jaxrefine.conversion.pretrained import load_config
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.readers import read_candidates
from jaxrefine.data.tokenizer import Tokenizer, load_tokenizer
from jaxrefine.evaluation.refinement import Query, Refinements
from jaxrefine.evaluation.refinement_costs import (
    Cost,
    Lengths,
    generation_cost,
    scoring_cost,
    together,
    training_cost,
)
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.flops import num_params
from jaxrefine.sampling.candidates import CANDIDATES
from jaxrefine.selection.trust import Signals, decides_to_refine
from jaxrefine.systems.art_run import (
    ANSWERS,
    ASK,
    ASKED,
    ASKER,
    REFINE,
    REFINED,
    SCORES,
    SELF,
    SELF_REFINED,
    TEST,
    TRAIN,
    TRUST,
    TRUSTER,
    VOTES,
    WRITTEN,
    ArtRun,
    asker_examples,
    truster_examples,
)
from jaxrefine.systems.art_texts import answers_of
from jaxrefine.training.finetuning import Finetuning

REFERENCE = "ψ, fine-tuned on the task"
"""The role that the others' costs are compared with: the large model, trained as the Asker is on the task."""


class Measurement:
    """Reads the artefacts of a run.

    Args:
        run: the config.
        directory: of the stage that asks.
    """

    def __init__(self, run: ArtRun, directory: pathlib.Path) -> None:
        self._run, self._directory = run, directory
        self._texts = run.texts(directory)
        self._train, self._test = (run.problems_of(directory, split) for split in (TRAIN, TEST))
        self._first, self._asked = run.first(directory), run.asked(directory)
        self._refined, self._own = (self._candidates(REFINE, name) for name in (REFINED, SELF_REFINED))
        self._votes = self._candidates(ANSWERS, VOTES)
        self._samples = self._candidates(ANSWERS, TRAIN) if run.labels_answers else []
        places = {} if run.solver.endpoint is not None else {"ψ": run.solver_directory(directory)}
        places |= {ASKER: run.asker_directory(directory), TRUSTER: run.truster_directory(directory)}
        self._models = {name: (load_config(place)[0], load_tokenizer(place)) for name, place in places.items()}

    @functools.cached_property
    def refinements(self) -> Refinements:
        """Every test problem with its answers and signals."""
        asked, self_, scores = (
            read_json(input_directory(self._directory, stage) / name)
            for stage, name in ((ASK, ASKED), (REFINE, SELF), (TRUST, SCORES))
        )
        queries, style = [], self._run.answer_style
        for place, problem in enumerate(self._test):
            signals = Signals(
                yes_probability=asked[place]["yes_probability"],
                asker_says_yes=bool(asked[place]["refine"]),  # neither Yes nor No refines nothing; `facts` counts it
                self_says_yes=self_[place]["says_yes"],
                scores=tuple(scores[place]["scores"]),
                self_choice=self_[place]["choice"],
            )
            initial, refined, own = (
                answers_of(found[place], style)[0] for found in (self._first, self._refined, self._own)
            )
            votes = answers_of(self._votes[place], style)
            queries.append(
                Query(
                    id=problem.id, initial=initial, refined=refined, signals=signals, votes=votes, self_refined=own
                )
            )  # fmt: skip
        generator, asker, truster = (self._titled(name) for name in ("ψ", ASKER, TRUSTER))
        return Refinements(generator=generator, asker=asker, truster=truster, queries=tuple(queries))

    def facts(self) -> dict[str, str]:
        """What the report says beside the figures."""
        run = self._run
        forms = collections.Counter(asked.form for asked in self._asked)
        labels = [label for sample in self._samples for label in sample.labels]
        votes = run.solver.votes
        learned = f"{len(labels)}, of which {100 * sum(labels) / max(1, len(labels)):.1f} % are right; " + (
            f"{len(self._pairs())} problems have right and wrong ones, for the Truster"
        )
        return {
            "problems": f"{run.problems.format}; {len(self._train)} to learn from, {len(self._test)} to measure on",
            "roles": ", ".join(self._titled(name) for name in ("ψ", ASKER, TRUSTER)),
            "answers to learn from": learned if labels else "none; Asker and Truster were trained before",
            "what the Asker wrote": ", ".join(f"{forms[form]} {form}" for form in ("strict", "lenient", "unparsable")),
            "sub-questions of": "the Asker" if run.sub_questions == "asker" else "the data",
            "vote of samples": f"{votes.num_candidates * len(votes.temperatures)} of ψ at temperature "
            f"{', '.join(f'{temperature:g}' for temperature in votes.temperatures)}",
        }

    @functools.cached_property
    def costs(self) -> list[Cost]:
        """Training and inference by role, in the layout of the paper's table; of ψ behind an endpoint nothing."""
        run, texts, solver = self._run, self._texts, self._models.get("ψ")
        asker, truster = self._models[ASKER], self._models[TRUSTER]
        task = [Instruction(p.id, texts.question(p), p.response) for p in self._train]
        small = []
        if run.asker.task is not None:
            small.append(self._trained("Asker, on the task", asker, task, run.asker.task))
        if run.asker.training is not None:
            asks = asker_examples(self._train, self._samples, texts)
            small.append(self._trained("Asker, to ask and decide", asker, asks, run.asker.training))
        if run.truster.training is not None:
            small.append(self._trained("Truster", truster, self._pairs(), run.truster.training, scored=False))
        costs = [*small, together("Asker and Truster", small)] if small else []
        known = run.asker.task or run.asker.training
        if solver is not None and known is not None:
            # As the Asker learns the task; where it does not, once over the training problems.
            config = known if run.asker.task is not None else dataclasses.replace(known, steps=None, epochs=1.0)
            costs = [self._trained(REFERENCE, solver, task, config), *costs]
        if solver is not None and self._samples:
            sampled = _lengths(self._samples, solver[1])
            costs.append(generation_cost("ψ, answers to be labelled", solver[0], sampled, phase="training"))
        return [*costs, *self._inference(solver, asker, truster)]

    @property
    def reference(self) -> str:
        """The role that costs are compared with, "" where it is not among them."""
        return REFERENCE if any(cost.role == REFERENCE for cost in self.costs) else ""

    def _inference(self, solver: _Model | None, asker: _Model, truster: _Model) -> list[Cost]:
        run, texts = self._run, self._texts
        decided = [
            decides_to_refine(run.settings.decision, query.signals, threshold=run.settings.threshold)
            for query in self.refinements.queries
        ]
        prompts = [texts.ask(p, one.responses[0]) for p, one in zip(self._test, self._first, strict=True)]
        written = self._candidates(ASK, f"{WRITTEN}/{CANDIDATES}")
        asked = [dataclasses.replace(text, prompt=prompt) for text, prompt in zip(written, prompts, strict=True)]
        refined = [one for one, yes in zip(self._refined, decided, strict=True) if yes]
        read = [
            Candidates(p.id, texts.question(p), (one.responses[0], other.responses[0]), (0.0, 0.0))
            for p, one, other, yes in zip(self._test, self._first, self._refined, decided, strict=True)
            if yes
        ]
        asks = generation_cost("Asker, asks about all", asker[0], _lengths(asked, asker[1]))
        reads = scoring_cost("Truster, reads both answers", truster[0], _lengths(read, truster[1]))
        if solver is None:
            return [asks, reads]
        refiner = asker if run.asker.writes == "all" else solver
        first = generation_cost("ψ, first answer", solver[0], _lengths(self._first, solver[1]))
        who = "Asker" if run.asker.writes == "all" else "ψ"
        refines = generation_cost(f"{who}, refines where it says Yes", refiner[0], _lengths(refined, refiner[1]))
        vote = generation_cost("ψ, samples to vote", solver[0], _lengths(self._votes, solver[1]))
        parts = [first, asks, refines, reads]
        return [*parts, together("ART, the whole", parts), vote]

    def _trained(
        self,
        role: str,
        model: _Model,
        examples: Sequence[Instruction | Candidates],
        config: Finetuning,
        *,
        scored: bool = True,
    ) -> Cost:
        size = min(config.groups_per_step, len(examples))
        epochs = config.num_steps(len(examples)) * size / max(1, len(examples))
        return training_cost(role, model[0], _lengths(examples, model[1]), epochs=epochs, scored=scored)

    def _pairs(self) -> list[Candidates]:
        return truster_examples(self._train, self._samples, self._texts)

    def _candidates(self, stage: str, name: str) -> list[Candidates]:
        return read_candidates(input_directory(self._directory, stage) / name)

    def _titled(self, name: str) -> str:
        if name not in self._models:
            assert self._run.solver.endpoint is not None
            return self._run.solver.endpoint.model
        number = num_params(self._models[name][0])
        unit, letter = next(size for size in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if number >= size[0])
        return f"{name.capitalize() if name != 'ψ' else name} {number / unit:.3g}{letter}"


_Model = tuple[TransformerConfig, Tokenizer]


def _lengths(examples: Sequence[Instruction | Candidates], tokenizer: Tokenizer) -> Lengths:
    """Tokens of prompts and responses, BOS and EOS included."""
    begin = int(tokenizer.bos_id is not None)
    prompts, responses = [], []
    for example in examples:
        texts = (example.response,) if isinstance(example, Instruction) else example.responses
        prompts.append(begin + len(tokenizer.encode(example.prompt)))
        responses.append(tuple(1 + len(tokenizer.encode(text)) for text in texts))
    return Lengths(prompts=tuple(prompts), responses=tuple(responses))
