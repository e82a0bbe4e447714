"""Labels for a file of candidates: from a model on this machine, or from one behind an endpoint."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, StageError, input_directory
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import set_aside
from jaxrefine.data.readers import read_candidates, write_candidates
from jaxrefine.data.tokenizer import load_tokenizer
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.judging.contextual import CONTEXTUAL, ContextualConfig, ContextualJudge, summarize_judgements
from jaxrefine.judging.files import judge_file
from jaxrefine.judging.likelihood import AskedLikelihood, ModelLikelihood, SaidLikelihood
from jaxrefine.judging.local import LocalModel, Rows
from jaxrefine.judging.pairwise import PairwiseJudge, comparisons_of, summarize_pairs
from jaxrefine.judging.prompts import Asking, Prompt, load_prompt
from jaxrefine.judging.provenance import Judge, Result, sources
from jaxrefine.judging.reward import load_reward_model
from jaxrefine.judging.verdict import VerdictJudge
from jaxrefine.judging.verdicts import PAIRWISE, GenerativeAsker, LikelihoodAsker, VerdictTexts
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.redaction import read_secret
from jaxrefine.sampling.responder import Responder, Scorer
from jaxrefine.sharding import MeshConfig, make_mesh

GIVEN, JUDGED, SUMMARY = "candidates.jsonl", "judged.jsonl", "summary.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalJudging:
    """A job; stopped at any instant, the same command goes on and ends with the same bytes."""

    candidates: str = ""
    """A ``.jsonl`` file, as ``read_candidates`` reads it; scores in it are not needed."""
    max_bad_lines: int = 0
    """Malformed lines of ``candidates`` set aside, with where and why, in ``rejects.jsonl``; more stop the job."""
    judge: Literal["likelihood", "reward", "pairwise", "verdict"] = "likelihood"
    """The log-probability of each response under the model; the number that its reward head gives; comparisons of all
    pairs in both orders, the verdict being the likeliest of three texts; or the log-odds of "correct" against
    "incorrect" after each response, for a model that was trained for it."""
    model: str | None = None
    """A Hugging Face directory with its tokenizer; None is the shipped small model, which has no reward head."""
    length_power: float = 1.3
    """β of the likelihood: the log-probability is divided by the length to this power."""
    verdicts: VerdictTexts = dataclasses.field(default_factory=VerdictTexts)
    """What the pairwise judge chooses from."""
    prompt: str = ""
    """A TOML file with a pairwise judge's prompt of one's own; "" is the shipped one."""
    fenced: bool = True
    """Whether the pairwise judge's texts stand between lines that name them; off for a prompt that does so itself."""
    rows: Rows = dataclasses.field(default_factory=Rows)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation: fp32 on CPU, else bf16."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    num_devices: int | None = None
    """How many of the devices that are there; None is all."""

    def __post_init__(self) -> None:
        if self.judge == "reward" and self.candidates and self.model is None:
            raise ValueError("no reward model: give yours with --model DIR; the shipped model has no reward head")

    def stages(self) -> list[Stage]:
        """Candidates, labels."""
        stages = _stages(self.candidates, self.label, self.max_bad_lines)
        _prompt(self.judge, self.prompt)  # a mistake in it is better noticed now
        return stages

    def label(self, directory: pathlib.Path) -> None:
        """Labels what is not labelled yet."""
        _judge(directory, self.make_judge())

    def make_judge(self) -> Judge:
        """The judge, its model loaded."""
        directory = SHIPPED if self.model is None else pathlib.Path(self.model).expanduser()
        mesh = make_mesh(self.mesh, jax.devices()[: self.num_devices])
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        dtype = ("float32" if on_cpu else "bfloat16") if self.dtype == "auto" else self.dtype
        if self.judge == "reward":
            return load_reward_model(directory, dtype=jnp.dtype(dtype), mesh=mesh).judge(rows=self.rows)
        config, params = load_pretrained(directory, mesh=mesh)
        local = LocalModel(
            model=Decoder(config, dtype=jnp.dtype(dtype)),
            params=params,
            tokenizer=load_tokenizer(directory),
            name=directory.resolve().name,
            mesh=mesh,
        )
        if self.judge == "pairwise":
            prompt = _prompt(self.judge, self.prompt)
            asker = LikelihoodAsker(local, prompt=prompt, verdicts=self.verdicts, rows=self.rows, fenced=self.fenced)
            return PairwiseJudge(asker)
        if self.judge == "verdict":
            return VerdictJudge(local, rows=self.rows)
        return ModelLikelihood(local, length_power=self.length_power, rows=self.rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointJudging:
    """A job; stopped at any instant, the same command goes on and pays for nothing twice."""

    endpoint: EndpointConfig
    """Where the model is, and what it may cost."""
    candidates: str = ""
    """A ``.jsonl`` file, as ``read_candidates`` reads it; scores in it are not needed."""
    max_bad_lines: int = 0
    """Malformed lines of ``candidates`` set aside, with where and why, in ``rejects.jsonl``; more stop the job."""
    judge: Literal["contextual", "pairwise", "likelihood", "said"] = "contextual"
    """Points for all responses at once; comparisons of all pairs in both orders; the log-probability that the model
    gives of each; or the log-probabilities that came with its own responses, for which nothing is asked."""
    keep: str = "runs/judging/replies"
    """Directory of the replies and the ledger: one ledger, one budget."""
    prompt: str = ""
    """A TOML file with a judge's prompt of one's own; "" is the shipped one."""
    asking: Asking = dataclasses.field(default_factory=lambda: Asking(max_tokens=2048))
    """How it is asked."""
    seed: int = 0
    """Of the order in which the contextual judge is shown the responses."""
    check_ranking: bool = True
    """Whether a ranking that contradicts the sums makes the contextual judge's reply malformed."""
    reader: Literal["marked", "leading"] = "marked"
    """Where the pairwise judge's verdict stands: in a marked last line, or alone in the first, as in PandaLM."""
    fenced: bool = True
    """Whether the pairwise judge's texts stand between lines that name them; off for a prompt that does so itself."""
    length_power: float = 1.3
    """β of the likelihood."""
    missing_allowed: float = 0.0
    """Share of the examples that may stay unanswered; with more, the stage stops and the same command goes on."""

    def stages(self) -> list[Stage]:
        """Candidates, labels."""
        stages = _stages(self.candidates, self.label, self.max_bad_lines)
        _prompt(self.judge, self.prompt)  # a mistake in it, and a missing key, are better noticed now
        read_secret(self.endpoint.api_key_env)
        return stages

    def label(self, directory: pathlib.Path) -> None:
        """Asks for what is not labelled yet; writes, beside the labels, what was spent."""
        with Endpoint(self.endpoint, self.keep) as endpoint:
            _judge(directory, self.make_judge(endpoint), missing_allowed=self.missing_allowed)
            write_json(directory / "spending.json", dataclasses.asdict(endpoint.spending))

    def make_judge(self, endpoint: Responder) -> Judge:
        """The judge, asking this endpoint; for likelihoods it must be a ``Scorer`` as well."""
        if self.judge == "contextual":
            settings = ContextualConfig(
                asking=self.asking,
                prompt=_prompt(self.judge, self.prompt),
                seed=self.seed,
                check_ranking=self.check_ranking,
            )
            return ContextualJudge(endpoint, settings)
        if self.judge == "pairwise":
            prompt = _prompt(self.judge, self.prompt)
            return PairwiseJudge(
                GenerativeAsker(endpoint, prompt=prompt, asking=self.asking, reader=self.reader, fenced=self.fenced)
            )
        if self.judge == "likelihood":
            if not isinstance(endpoint, Scorer):
                raise TypeError(f"{endpoint.name} answers requests, and gives no log-probabilities of given texts")
            return AskedLikelihood(endpoint, length_power=self.length_power)
        return SaidLikelihood(endpoint.name, model_version=endpoint.version, length_power=self.length_power)


def _prompt(judge: str, file: str) -> Prompt:
    """A judge's prompt: of the file, or the shipped one; of a judge that says nothing, the shipped one is not read."""
    shipped = {"contextual": CONTEXTUAL, "pairwise": PAIRWISE}
    if judge not in shipped and file:
        raise ValueError(f"--prompt is for the contextual and the pairwise judge; --judge is {judge}")
    return load_prompt(file, judge) if file else shipped.get(judge, PAIRWISE)


def _stages(candidates: str, label: Callable[[pathlib.Path], None], max_bad_lines: int) -> list[Stage]:
    if not candidates:
        raise ValueError("no candidates: give yours with --candidates FILE.jsonl")
    if not pathlib.Path(candidates).expanduser().is_file():
        raise ValueError(f"candidates: there is no file {candidates}; give yours with --candidates FILE.jsonl")

    def check(directory: pathlib.Path) -> None:
        """Reads all of them before anything is asked, and keeps them as they were."""
        options = set_aside(directory, max_bad_lines)
        given = read_candidates(pathlib.Path(candidates).expanduser(), scored=False, **options)
        write_candidates(directory / GIVEN, given)

    return [Stage("candidates", check), Stage("labels", label, inputs=("candidates",))]


def _judge(directory: pathlib.Path, judge: Judge, *, missing_allowed: float = 0.0) -> None:
    target = directory / JUDGED
    journal = target.with_name(f"{JUDGED}.journal")
    if not (directory / SUMMARY).exists():  # else it was stopped between its last file and its manifest
        results, summary = judge_file(judge, input_directory(directory, "candidates") / GIVEN, target)
        say(str(summary))
        if summary.unjudged["unanswered"] > missing_allowed * summary.examples:
            raise StageError(
                f"{summary}. The same command asks for the unanswered ones again; --missing-allowed goes without them."
            )
        labelled = [result for result in results if isinstance(result, Candidates)]
        write_json(
            directory / SUMMARY,
            dataclasses.asdict(summary) | {"sources": sources(labelled)} | _of_kind(results),
        )
    journal.unlink(missing_ok=True)  # the same labels in the order in which they were done


def _of_kind(results: Sequence[Result]) -> dict[str, object]:
    """What can be said of this kind of judge beyond the counts."""
    found: dict[str, object] = {}
    if compared := comparisons_of(results):
        found["pairs"] = summarize_pairs(compared).record()
        say(str(summarize_pairs(compared)))
    judgements = summarize_judgements(results)
    if judgements.judged:
        found["judgements"] = dataclasses.asdict(judgements)
    return found
