"""Tuna: learning from ranked responses (arXiv:2310.13385), every stage and every ablation of the paper.

    prompts ─ teacher ─┐
                       ├─ for each phase of each recipe: [samples ─ judged ─ proxy ─] train ─ … ─ replies ─ report
    student ───────────┘

A recipe is a chain of phases from the given model on; recipes that begin alike share what they share. A phase learns
from parts: the instructions themselves, a teacher's responses ranked by their likelihood (Eq. 3), the model's own
responses ranked by a judge, or by a proxy ranking model that was trained on the judge's rankings.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.data.arithmetic import generate
from jaxrefine.data.examples import ORIGINAL, Candidates, Instruction
from jaxrefine.data.readers import read_candidates, read_instructions, write_candidates
from jaxrefine.data.readers_instructions import read_alpaca, read_tuna, read_tuna_likelihoods
from jaxrefine.evaluation.model_report import (
    compare_models,
    mean_rank_scores,
    print_model_table,
    write_model_report,
)
from jaxrefine.evaluation.rank_lengths import draw_lengths, length_by_rank
from jaxrefine.evaluation.replies import Asked, Replies, ask_models, measure_replies, read_replies, values_of
from jaxrefine.evaluation.tasks import check_paths
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.evaluation.vicuna import compare_answers
from jaxrefine.judging.files import judge_file
from jaxrefine.judging.likelihood import SaidLikelihood
from jaxrefine.judging.pairwise import PairwiseJudge
from jaxrefine.judging.reward import load_reward_model
from jaxrefine.judging.verdicts import GenerativeAsker
from jaxrefine.sampling.candidates import sample_candidates
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.systems.tuna_settings import OWN, Chain, Part, Phase, Source, TunaSettings
from jaxrefine.training.finetuning import finetune

BASE = "given model"
PROMPTS, JUDGED = "prompts.jsonl", "judged.jsonl"
TEACHER = SHIPPED.parent / "arithmetic-teacher"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuna(TunaSettings):
    """A Tuna run."""

    def stages(self) -> list[Stage]:
        """Prompts, the teacher's responses, then sampling, judging and training of each chain, replies, report."""
        given = {name: getattr(self, name) for name in ("data", "teacher_file", "student", "teacher")}
        for name, path in {**given, "proxy.model": self.proxy.model}.items():
            if path is not None and not Path(path).expanduser().exists():
                flag = name.replace("_", "-")
                raise ValueError(f"{name}: there is no {path}; give yours with --{flag} PATH")
        check_paths(self.asked)
        stages = [Stage("prompts", self.gather)]
        made = {"prompts"}

        def add(name: str, run: Any, *inputs: str) -> None:
            if name not in made:
                made.add(name)
                stages.append(Stage(name, run, inputs))

        for chain in self.chains():
            start, phase = chain[:-1], self.phase(chain[-1])
            before = [_stage("train", start)] if start else []
            sources = {part.source for part in phase.parts}
            inputs = ["prompts", *before]
            if sources & {"probabilistic", "responses"}:
                add("teacher", self.ask_teacher, "prompts")
                inputs.append("teacher")
            if sources & set(OWN):
                samples, judged, proxy = (_stage(kind, start) for kind in ("samples", "judged", "proxy"))
                add(samples, functools.partial(self.sample, start), "prompts", *before)
                if "contextual" in sources or "proxy" in sources:
                    add(judged, functools.partial(self.rank, start), samples)
                if "proxy" in sources:
                    add(proxy, functools.partial(self.rank_by_proxy, start), samples, judged)
                inputs += [name for name in (judged, proxy) if name in made]
            add(_stage("train", chain), functools.partial(self.train, chain), *inputs)
        models = [_stage("train", chain) for chain in self.chains()]
        stages.append(Stage("replies", self.reply, tuple(models)))
        own = [stage.name for stage in stages if stage.name.startswith(("judged", "proxy"))]
        stages.append(Stage("report", self.report, ("prompts", "replies", *own)))
        return stages

    # what each stage does

    def gather(self, directory: Path) -> None:
        """The instructions as prompts that remember their own response."""
        found: Sequence[Instruction]
        if self.data is None:
            num = int(self.num_prompts or 0)
            found = [p.instruction() for p in generate("train", num, self.problems_seed, self.problems)]
        elif self.data_format == "alpaca":
            found = read_alpaca(self.data, skip_empty=True)
        else:
            found = read_instructions(self.data)
        prompts = [
            Candidates(one.id, one.prompt, answer=one.answer, meta={**one.meta, ORIGINAL: one.response})
            for one in found[: self.num_prompts]
        ]
        write_candidates(directory / PROMPTS, prompts)

    def ask_teacher(self, directory: Path) -> None:
        """Responses of the teacher, ranked by log p / length^β."""
        if self.teacher_file is not None:
            write_candidates(directory / JUDGED, self._of_file(_prompts(directory)))
            return
        loaded = load_model(TEACHER if self.teacher is None else Path(self.teacher).expanduser(), self._sampler)
        drawn = directory / "samples"
        sample_candidates(
            loaded, _prompts(directory), self.teacher_sampling, drawn, description="the teacher's responses"
        )
        judge = SaidLikelihood(loaded.directory.name, model_version=loaded.digest, length_power=self.length_power)
        judge_file(judge, drawn / "candidates.jsonl", directory / JUDGED, description="likelihoods")

    def sample(self, start: Chain, directory: Path) -> None:
        """A model's own responses, those that are too similar drawn again."""
        chosen = self._prompts_of(start, OWN, _prompts(directory))
        for seed in self.seeds:
            config = dataclasses.replace(self.own_sampling, seed=seed)
            loaded = load_model(self._model(directory, start, seed), self._sampler)
            what = f"responses of {_name(start)}, seed {seed}"
            sample_candidates(loaded, chosen, config, directory / f"seed-{seed}", description=what)

    def rank(self, start: Chain, directory: Path) -> None:
        """Their ranking by the judge: of all prompts that a contextual part or the proxy's training asks for."""
        names = {prompt.id for prompt in self._prompts_of(start, ("contextual",), _prompts(directory))}
        with self.judge.open() as judge:
            for seed in self.seeds:
                own = directory / f"seed-{seed}"
                given = read_candidates(_samples(directory, start, seed))
                own.mkdir(exist_ok=True)
                write_candidates(own / "candidates.jsonl", [example for example in given if example.id in names])
                _, summary = judge_file(judge, own / "candidates.jsonl", own / JUDGED)
                say(f"seed {seed}: {summary}")

    def rank_by_proxy(self, start: Chain, directory: Path) -> None:
        """A reward model learns the judge's rankings, then ranks the responses to all prompts that were sampled."""
        training = self.proxy.training
        assert training is not None
        origin = self._student if self.proxy.model is None else Path(self.proxy.model).expanduser()
        for seed in self.seeds:
            own = directory / f"seed-{seed}"
            first = {prompt.id for prompt in _prompts(directory)[: self.proxy.stop]}
            judged = _ranked(directory, "judged", start, seed)
            known = [example for example in judged if example.id in first]
            what = f"proxy ranking model, seed {seed}"
            config = dataclasses.replace(training, seed=seed)
            model = finetune(origin, known, config, own / "model", placement=self.placement, description=what)
            judge = load_reward_model(model, mesh=self.placement.make_mesh()).judge()
            judge_file(judge, _samples(directory, start, seed), own / JUDGED, description="proxy ranking")

    def train(self, chain: Chain, directory: Path) -> None:
        """One phase, from the model of the chain before it."""
        phase = self.phase(chain[-1])
        for seed in self.seeds:
            examples = self._examples(phase, chain[:-1], seed, directory)
            start = self._model(directory, chain[:-1], seed)
            config = dataclasses.replace(phase.training, seed=seed)
            what = f"{_name(chain)}, seed {seed}"
            finetune(start, examples, config, directory / f"seed-{seed}", placement=self.placement, description=what)

    def reply(self, directory: Path) -> None:
        """Greedy replies of every recipe's model, and of the given one, to every task."""
        ask_models(self._compared(directory), self.asked, directory, self.placement)

    def report(self, directory: Path) -> None:
        """The table, intervals, differences, lengths by rank."""
        replies = read_replies(self._compared(directory), self.asked, input_directory(directory, "replies"))
        measured = measure_replies(replies, self.asked)
        values = values_of(measured)
        comparison = compare_models(values, self.chosen[0].name, num_resamples=self.num_resamples)
        more: dict[str, Any] = {
            "whole": {
                name: {task: [dict(one.whole) for one in found] for task, found in by_task.items()}
                for name, by_task in measured.items()
            }
        }
        if self.compared_by is not None:
            more["pairs"] = self._compare_pairs(replies)
        lengths = {
            f"{stage.name}, seed {seed}": length_by_rank(read_candidates(path))
            for stage in self.stages()
            if stage.name.startswith(("judged", "proxy"))
            for seed in self.seeds
            if (path := input_directory(directory, stage.name) / f"seed-{seed}" / JUDGED).is_file()
        }
        sections = []
        for task, metrics in values[BASE].items():
            if "judge" in metrics:
                scores = mean_rank_scores({name: found[task]["judge"] for name, found in values.items()})
                more.setdefault("rank_scores", {})[task] = scores
                shown = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
                sections.append(f"Rank scores by the judge on {task} (rank i of {len(scores)} scores "
                                f"{len(scores) + 1} − i, equals share): {shown}.")  # fmt: skip
        if lengths:
            (directory / "figures").mkdir(exist_ok=True)
            draw_lengths(lengths).savefig(directory / "figures" / "lengths.png", dpi=160, metadata={"Software": None})
            sections.append(
                "## Length by rank\n\nMean number of words of the responses at each rank, the best first: "
                "a judge's liking for length shows as a slope.\n\n![length by rank](figures/lengths.png)"
            )
            more["lengths"] = {name: list(found) for name, found in lengths.items()}
        print_model_table(comparison)
        path = write_model_report(
            comparison, directory, title=self.title, facts=self._facts(directory), sections=sections, more=more
        )
        say(f"report: {path}")

    # what the stages share

    @property
    def _student(self) -> Path:
        return SHIPPED if self.student is None else Path(self.student).expanduser()

    @property
    def _sampler(self) -> Placement:
        return dataclasses.replace(self.placement, attention="dense", remat="none")

    def _model(self, directory: Path, chain: Chain, seed: int) -> Path:
        if not chain:
            return self._student
        return input_directory(directory, _stage("train", chain)) / f"seed-{seed}" / "model"

    def _compared(self, directory: Path) -> list[Asked]:
        """Every model that replies; the given one has one seed."""
        return [Asked(BASE, self.seeds[0], self._student)] + [
            Asked(recipe.name, seed, self._model(directory, recipe.phases, seed))
            for recipe in self.chosen
            for seed in self.seeds
        ]

    def _examples(self, phase: Phase, start: Chain, seed: int, directory: Path) -> list[Candidates | Instruction]:
        """What a phase learns from, part after part."""
        prompts = _prompts(directory)
        examples: list[Candidates | Instruction] = []
        for part in phase.parts:
            wanted = part.of(prompts)
            if part.source == "instructions":
                examples += [Instruction(one.id, one.prompt, str(one.meta[ORIGINAL]), one.answer) for one in wanted]
                continue
            stage = {"contextual": "judged", "proxy": "proxy"}.get(part.source, "teacher")
            ranked = {example.id: example for example in _ranked(directory, stage, start, seed)}
            known = [ranked[one.id] for one in wanted if one.id in ranked]
            if part.source == "responses":
                for one in known:
                    texts = [str(one.meta[ORIGINAL]), *one.responses]
                    examples += [Instruction(f"{one.id}/{n}", one.prompt, text) for n, text in enumerate(texts)]
            else:
                examples += known
        return examples

    def _prompts_of(self, start: Chain, sources: Sequence[Source], prompts: Sequence[Candidates]) -> list[Candidates]:
        """The prompts that parts of these sources take at a chain, and those that the proxy's training takes."""
        wanted = {one.id for part in self._parts(start, sources) for one in part.of(prompts)}
        if self._parts(start, ("proxy",)):
            wanted |= {one.id for one in prompts[: self.proxy.stop]}
        return [one for one in prompts if one.id in wanted]

    def _parts(self, start: Chain, sources: Sequence[Source]) -> list[Part]:
        """Parts of these sources in any phase that begins at a chain."""
        following = [chain[-1] for chain in self.chains() if chain[:-1] == start]
        return [part for name in following for part in self.phase(name).parts if part.source in sources]

    def _of_file(self, prompts: Sequence[Candidates]) -> list[Candidates]:
        """The teacher's ranked responses of a file, to the prompts that are there."""
        read = {"tuna": read_tuna, "jsonl": read_candidates}.get(self.teacher_format)
        path = str(self.teacher_file)
        found = read(path) if read else read_tuna_likelihoods(path, length_power=self.length_power)
        by_prompt = {example.prompt: example for example in found}
        matched = [
            dataclasses.replace(
                by_prompt[one.prompt], id=one.id, answer=one.answer, meta={**by_prompt[one.prompt].meta, **one.meta}
            )
            for one in prompts
            if one.prompt in by_prompt
        ]
        say(f"{self.teacher_file}: ranked responses to {len(matched)} of {len(prompts)} prompts")
        if not matched:
            raise ValueError(
                f"{self.teacher_file}: none of its {len(found)} prompts is one of the data's {len(prompts)}"
            )
        return matched

    def _compare_pairs(self, replies: Replies) -> dict[str, Any]:
        """Win, lose and tie of each model against the first recipe's, on tasks of questions; of the first seed."""
        assert self.compared_by is not None
        control, results = self.chosen[0].name, {}
        with Endpoint(self.compared_by, self.judge.keep) as endpoint:
            judge = PairwiseJudge(GenerativeAsker(endpoint))
            for task in (task for task in self.asked if task.kind == "questions"):
                for name in (name for name in replies if name != control):
                    scores = compare_answers(judge, replies[name][task.name][0], replies[control][task.name][0])
                    say(f"{task.name}, {name} against {control}: {scores.overall}")
                    results[f"{task.name}/{name}"] = dataclasses.asdict(scores)
        return results

    def _facts(self, directory: Path) -> dict[str, str]:
        device = self.placement.make_mesh().devices.flat[0]
        teacher = self.teacher_file or (TEACHER.name if self.teacher is None else self.teacher)
        recipes = "; ".join(f"{recipe.name} = {' → '.join(recipe.phases)}" for recipe in self.chosen)
        return {
            "student": self._student.name,
            "teacher": str(teacher),
            "judge": self.judge.kind,
            "prompts": str(len(_prompts(directory))),
            "recipes": recipes,
            "seeds": str(list(self.seeds)),
            "device": f"{device.device_kind}",
        }


def _stage(kind: str, chain: Chain) -> str:
    return "-".join((kind, *(chain or ("given",))))


def _name(chain: Chain) -> str:
    return " → ".join(chain) or BASE


def _prompts(directory: Path) -> list[Candidates]:
    return read_candidates(input_directory(directory, "prompts") / PROMPTS, min_candidates=0)


def _samples(directory: Path, start: Chain, seed: int) -> Path:
    return input_directory(directory, _stage("samples", start)) / f"seed-{seed}" / "candidates.jsonl"


def _ranked(directory: Path, kind: str, start: Chain, seed: int) -> list[Candidates]:
    if kind == "teacher":
        return read_candidates(input_directory(directory, kind) / JUDGED)
    return read_candidates(input_directory(directory, _stage(kind, start)) / f"seed-{seed}" / JUDGED)
