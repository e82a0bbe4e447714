"""A small language model of the arithmetic world, from nothing: tokenizer, training, export, evaluation, card."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.artefacts.atomic import read_json, write_json, write_text
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.manifest import versions
from jaxrefine.artefacts.progress import progress
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.config import show
from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.data.arithmetic import ArithmeticConfig, Problem, problem
from jaxrefine.data.examples import Candidates
from jaxrefine.data.loader import Loader
from jaxrefine.data.packing import PackingConfig, Refused, TokenGroup, reasons, tokenize_group
from jaxrefine.data.tokenizer import FastTokenizer, load_tokenizer, train_tokenizer
from jaxrefine.evaluation.metrics import bootstrap, make_resamples
from jaxrefine.evaluation.variant_data import Lengths
from jaxrefine.evaluation.variant_sampling import sample_into, sampled
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.policies import Greedy, Policy
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.sharding import make_mesh, row_share
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.state import init_params
from jaxrefine.typing import Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """A recipe; the same recipe gives the same model, bit for bit, on the same kind of device."""

    name: str
    """Of the model, and of its directory."""
    world: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    """What the problems are like."""
    num_problems: int = 130_000
    """Training problems; read again in a new order where ``train.steps`` asks for more."""
    num_tokenizer_problems: int = 20_000
    """Of them, those that the tokenizer is made from."""
    vocab_size: int = 1024
    """At most; the text of the world gives fewer."""
    model: TransformerConfig
    """``vocab_size`` is taken from the tokenizer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; the weights are trained in fp32 and exported in bf16."""
    rows: int = 32
    """B, rows of a batch."""
    slots: int = 192
    """S, tokens of a row; a problem that is longer is set aside and counted."""
    train: TrainConfig
    num_devices: int | None = None
    """How many of the devices that are there; None is all."""
    num_test_problems: int = 500
    num_candidates: int = 16
    """Samples a test problem, for the share of problems that any of them solves."""
    policy: Policy = dataclasses.field(default_factory=lambda: Policy(temperature=1.0))
    max_new_tokens: int = 96
    seed: int = 0
    """Of the problems, their order, and the new parameters."""

    def stages(self) -> list[Stage]:
        """Tokenizer, training, export, evaluation."""
        return [
            Stage("tokenizer", self.make_tokenizer),
            Stage("train", self.train_model, inputs=("tokenizer",)),
            Stage("export", self.export, inputs=("tokenizer", "train")),
            Stage("evaluate", self.evaluate, inputs=("export",)),
        ]

    def make_tokenizer(self, directory: pathlib.Path) -> None:
        """A byte-level BPE of the world's own text."""
        problems = (problem("train", i, self.seed, self.world) for i in range(self.num_tokenizer_problems))
        train_tokenizer((f"{p.question}\n{p.solution}" for p in problems), self.vocab_size).save(directory)

    def train_model(self, directory: pathlib.Path) -> None:
        """Maximum likelihood of solutions; the prompt is read, never scored."""
        tokenizer = load_tokenizer(input_directory(directory, "tokenizer"))
        groups, refused = self._groups(tokenizer)
        write_json(directory / "summary.json", {"num_problems": len(groups), "refused": refused})
        packing = PackingConfig.fit(groups[:4096], rows=self.rows, slots=self.slots, expand=False)
        mesh = make_mesh(self.train.mesh, jax.devices()[: self.num_devices])
        share, num_shares = row_share(mesh)
        loader = Loader(
            groups,
            packing,
            seed=self.seed,
            epochs=None,
            num_microbatches=self.train.num_microbatches,
            process_index=share,
            process_count=num_shares,
        )
        decoder = self._decoder(tokenizer.vocab_size)
        likelihood = ObjectiveConfig(loss=None, mle_weight=1.0, mle_normalize="token")
        objective = make_objective(likelihood, decoder)
        params = init_params(objective, jax.random.key(self.seed), next(iter(loader)), mesh=mesh)
        state = fit(objective, params, loader, self.train, directory, mesh=mesh, description=f"pre-train {self.name}")
        save_pretrained(
            directory / "model",
            decoder.config,
            state.params["model"],
            dtype=jnp.float32,
            extra={
                "bos_token_id": tokenizer.bos_id,
                "eos_token_id": tokenizer.eos_id,
                "pad_token_id": tokenizer.pad_id,
            },
        )

    def export(self, directory: pathlib.Path) -> None:
        """The model in bf16 with its tokenizer, as a Hugging Face directory."""
        source = input_directory(directory, "train") / "model"
        config, params = load_pretrained(source)
        extra = {name: value for name, value in read_json(source / "config.json").items() if name.endswith("_token_id")}
        save_pretrained(
            directory / self.name,
            config,
            params,
            tokenizer_dir=input_directory(directory, "tokenizer"),
            dtype=jnp.bfloat16,
            extra=extra,
        )

    def evaluate(self, directory: pathlib.Path) -> None:
        """Accuracy of the exported files on the test split: greedy, sampled, of the best of k; and the card."""
        model = input_directory(directory, "export") / self.name
        base = load_model(model, Placement(mesh=self.train.mesh, num_devices=self.num_devices))
        problems = [problem("test", i, self.seed, self.world) for i in range(self.num_test_problems)]
        greedy = self._solved(base, problems, directory / "greedy.jsonl", Greedy, 1)
        samples = self._solved(base, problems, directory / "samples.jsonl", self.policy, self.num_candidates)
        steps = np.array([p.tags.num_steps for p in problems])
        quality = {
            "greedy": greedy[:, 0],
            "sampled": samples.mean(1),
            f"any_of_{self.num_candidates}": samples.max(1),
        }
        resamples = make_resamples(1, len(problems))
        metrics = {
            "num_params": sum(leaf.size for leaf in jax.tree.leaves(base.params)),
            "num_test_problems": len(problems),
            "accuracy": {
                name: dataclasses.asdict(bootstrap(values[None], resamples)) for name, values in quality.items()
            },
            "greedy_by_num_steps": {
                int(num): {"accuracy": float(greedy[steps == num, 0].mean()), "num": int((steps == num).sum())}
                for num in np.unique(steps)
            },
        }
        write_json(directory / "metrics.json", metrics)
        write_text(directory / "README.md", card(self, metrics, versions()))

    def _solved(
        self, base: LoadedModel, problems: list[Problem], file: pathlib.Path, policy: Policy, num: int
    ) -> Float[np.ndarray, "problems k"]:
        """1 where a sample's marked answer is the problem's, else 0."""
        prompts = [Candidates(p.id, p.instruction().prompt, answer=str(p.answer)) for p in problems]
        lengths = Lengths(prompt=self.slots, response=self.max_new_tokens)
        with Journal(file) as journal:
            sample_into(
                journal,
                base,
                prompts,
                num_samples=num,
                policy=policy,
                key=jax.random.key(self.seed),
                lengths=lengths,
                batch_size=None,
                description=f"{file.stem} of {self.name}",
                provenance={"model": base.digest, "policy": dataclasses.asdict(policy), "seed": self.seed},
            )
            return np.array([judged.example.labels for judged in sampled(journal, prompts)])

    def _groups(self, tokenizer: FastTokenizer) -> tuple[list[TokenGroup], dict[str, int]]:
        """The training problems as token groups; those longer than a row are set aside and counted."""
        groups: list[TokenGroup] = []
        refused: list[Refused] = []
        for index in progress(range(self.num_problems), "problems", unit="problems"):
            example = problem("train", index, self.seed, self.world).instruction()
            group = tokenize_group(
                example, tokenizer, group_id=index, max_prompt=self.slots, max_response=self.slots, mle_on="all"
            )
            if isinstance(group, TokenGroup) and len(group.prompt) + len(group.responses[0]) > self.slots:
                group = Refused(index, f"longer than slots = {self.slots}")
            (groups if isinstance(group, TokenGroup) else refused).append(group)  # type: ignore[arg-type]
        return groups, reasons(refused)

    def _decoder(self, vocab_size: int) -> Decoder:
        return Decoder(
            dataclasses.replace(self.model, vocab_size=vocab_size), dtype=jnp.dtype(self.dtype), attention="dense"
        )


def card(config: PretrainingConfig, metrics: Mapping[str, Any], used: Mapping[str, str]) -> str:
    """The model card: what it is, how it was made, what it reaches."""
    accuracy = "\n".join(
        f"| {name.replace('_', ' ')} | {cell['value']:.1%} | {cell['low']:.1%} – {cell['high']:.1%} |"
        for name, cell in metrics["accuracy"].items()
    )
    by_steps = "\n".join(
        f"| {num} | {cell['accuracy']:.1%} | {cell['num']} |" for num, cell in metrics["greedy_by_num_steps"].items()
    )
    recipe = "\n".join(f"    {line}" for line in show(config).splitlines())
    made_with = ", ".join(f"{name} {version}" for name, version in sorted(used.items()))
    policy = f"temperature {config.policy.temperature}, top-p {config.policy.top_p}"
    return f"""# {config.name}

A language model of {metrics["num_params"]:,} parameters (LLaMA's architecture, bf16, byte-level BPE) that solves
word problems of jaxrefine's arithmetic world step by step. It was trained from nothing on generated text alone; it is
for demonstrations and tests, and knows nothing else.

A prompt is a question and a line end; the solution has one calculation a line and ends with `#### ` and the answer.

## Accuracy

On {metrics["num_test_problems"]} problems of the test split, of which no combination of templates and numbers is in the
training split (95 % bootstrap interval over problems; the samples: {policy}):

| | solved | interval |
|---|---|---|
{accuracy}

Greedy, by the number of calculations that a problem takes:

| calculations | solved | problems |
|---|---|---|
{by_steps}

## Recipe

{recipe}

Made with {made_with}.
"""
