"""The model that every variant starts from, and what is sampled from it once for all: candidates and base samples."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.examples import Candidates
from jaxrefine.data.tokenizer import Tokenizer, load_tokenizer
from jaxrefine.evaluation.variant_data import Judged, Lengths, judge, judged_samples, number_of, prompt_ids
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.generate import iterate
from jaxrefine.sampling.policies import Policy
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.typing import Array, Key, Params

DType = Literal["auto", "float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A loaded model directory; never changed, only copied."""

    directory: Path
    digest: str
    """Of the weights and the tokenizer, as files."""
    decoder: Decoder
    params: Params
    tokenizer: Tokenizer
    mesh: Mesh

    @property
    def num_shards(self) -> int:
        """Parts into which the mesh splits a batch's rows."""
        return int(self.mesh.shape["data"] * self.mesh.shape["fsdp"])


def load_base(
    directory: Path,
    *,
    dtype: DType = "auto",
    mesh: MeshConfig,
    num_devices: int | None = None,
    attention: str = "expand",
    remat: str = "none",
) -> BaseModel:
    """A model directory in Hugging Face layout with its tokenizer.

    Args:
        directory: config.json, weights, tokenizer.
        dtype: of the computation; "auto" is fp32 on CPU and bf16 elsewhere.
        mesh: where the parameters go.
        num_devices: how many of the devices that are there; None is all.
        attention: of the decoder in training and scoring.
        remat: of the decoder in training.

    Raises:
        ValueError: there are several processes.
    """
    if jax.process_count() > 1:
        raise ValueError("the comparison of loss variants runs in one process (with as many devices as it has)")
    placed = make_mesh(mesh, jax.devices()[:num_devices])
    config, params = load_pretrained(directory, mesh=placed)
    if dtype == "auto":
        dtype = "float32" if placed.devices.flat[0].platform == "cpu" else "bfloat16"
    return BaseModel(
        directory=directory,
        digest=directory_digest(directory),
        decoder=Decoder(config, dtype=jnp.dtype(dtype), attention=attention, remat=remat),
        params=params,
        tokenizer=load_tokenizer(directory),
        mesh=placed,
    )


def directory_digest(directory: Path) -> str:
    """A hash of a model directory's weights, config and tokenizer: 32 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=16)
    kinds = ("*.safetensors", "*.bin", "*.json", "*.model")
    for path in sorted({path for kind in kinds for path in directory.glob(kind)}):
        total.update(path.name.encode() + b"\0")
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return total.hexdigest()


def sample_into(
    journal: Journal,
    base: BaseModel,
    prompts: Sequence[Candidates],
    *,
    num_samples: int,
    policy: Policy,
    key: Key[Array, ""],
    lengths: Lengths,
    batch_size: int | None,
    description: str,
    provenance: Mapping[str, Any],
) -> None:
    """Samples and judges every prompt that the journal does not hold yet; stopped and called again, it goes on.

    Args:
        journal: gets one record a prompt: its samples with text, tokens, outcome and log-prob, and their origin.
        base: what samples.
        prompts: with their known answers.
        num_samples: a prompt.
        policy: how a token is chosen.
        key: of the job; a prompt's samples depend on it and on the prompt's id alone.
        lengths: the longest prompt and response.
        batch_size: prompts at once; None is the sampler's own choice.
        description: beside the progress bar.
        provenance: kept in every record.
    """
    missing = [prompt for prompt in prompts if prompt.id not in journal]
    if not missing:
        return
    with progress(len(prompts), description, initial=len(prompts) - len(missing), unit="prompts") as bar:
        for index, samples in iterate(
            base.decoder,
            base.params,
            [prompt_ids(prompt, base.tokenizer, lengths) for prompt in missing],
            prompt_ids=[number_of(prompt.id) for prompt in missing],
            num_candidates=num_samples,
            max_new_tokens=lengths.response,
            policy=policy,
            eos_id=base.tokenizer.eos_id,
            key=key,
            batch_size=batch_size,
        ):
            records = judge(missing[index], samples, base.tokenizer)
            journal.append(missing[index].id, {"samples": records, **provenance})
            bar.advance()


def sampled(journal: Journal, prompts: Sequence[Candidates]) -> list[Judged]:
    """What `sample_into` put into a journal, in the order of the prompts."""
    records = journal.records()
    return [judged_samples(prompt, records[prompt.id]["samples"]) for prompt in prompts]
