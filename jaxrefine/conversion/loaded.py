"""A model directory as the systems hold it: module, parameters on a mesh, tokenizer, digest."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxrefine.artefacts.integrity import INTEGRITY
from jaxrefine.conversion.apply import abstract_params
from jaxrefine.conversion.encoders import load_encoder
from jaxrefine.conversion.pretrained import load_pretrained, read_config
from jaxrefine.data.tokenizer import Tokenizer, load_tokenizer
from jaxrefine.models.attention import check_platform
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.families import ENCODERS
from jaxrefine.models.precision import PRECISION, Precision, precision_of
from jaxrefine.models.remat import check_remat
from jaxrefine.sharding import MeshConfig, check_split, make_mesh
from jaxrefine.typing import Params

DType = Literal["auto", "float32", "bfloat16", "pure_bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model computes, and how."""

    dtype: DType = "auto"
    """A key of ``jaxrefine.models.precision.PRECISION``; "auto" computes in fp32 on CPU, else in bf16."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    num_devices: int | None = None
    """How many of the devices that are there; None is all."""
    attention: str = "expand"
    """Of a decoder, in training and scoring: "expand" and "dense" run anywhere, "cudnn" on GPUs, "splash" on TPUs."""
    logprobs: Literal["xla", "pallas"] = "xla"
    """Who computes a decoder's log-probs: "pallas" is a kernel for TPUs, worth it on v6e."""
    logprob_chunk: int | None = None
    """Tokens, all devices' together, whose logits are there at once; None chooses. Fewer need less memory, and read
    the output embedding more often."""
    remat: str = "none"
    """In training, a key of ``jaxrefine.models.remat.REMAT``."""
    pooling: str = "first"
    """Of an encoder."""

    def make_mesh(self) -> Mesh:
        """The mesh over the devices that are there."""
        return make_mesh(self.mesh, jax.devices()[: self.num_devices])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A loaded model directory; never changed, only copied."""

    directory: Path
    digest: str
    """Of the weights and the tokenizer, as files."""
    model: Any
    """A ``Decoder`` or an ``Encoder``."""
    params: Params
    """The model's own tree."""
    tokenizer: Tokenizer
    mesh: Mesh
    precision: Precision = PRECISION["float32"]
    """What training stores its parameters in."""

    @property
    def num_shards(self) -> int:
        """Parts into which the mesh splits a batch's rows."""
        return int(self.mesh.shape["data"] * self.mesh.shape["fsdp"])


def load_model(directory: Path, placement: Placement | None = None) -> LoadedModel:
    """A model directory in Hugging Face layout with its tokenizer: a decoder, or an encoder without its classifier.

    Args:
        directory: config.json, weights, tokenizer.
        placement: mesh, dtype, attention; None is the default.

    Raises:
        FileNotFoundError: no directory, config, weights or tokenizer.
        ValueError: what ``load_pretrained`` refuses.
    """
    placement = Placement() if placement is None else placement
    mesh = placement.make_mesh()
    family, attributes, where = read_config(directory)
    precision = precision_of(placement.dtype, mesh.devices.flat[0].platform)
    check_remat(placement.remat, mesh)
    check_split(abstract_params(family.from_hf(attributes, where=where)), mesh, placement.mesh.max_unsplit)
    dtype = precision.compute
    model: Any
    if family.model_type in ENCODERS:
        encoder, params = load_encoder(directory, mesh=mesh, param_dtype=precision.params)
        params = {part: tree for part, tree in params.items() if part != "classifier"}
        encoder = dataclasses.replace(encoder, num_labels=None)
        model = Encoder(encoder, dtype=jnp.dtype(dtype), pooling=placement.pooling, remat=placement.remat)
    else:
        check_platform(placement.attention, mesh.devices.flat[0].platform)
        config, params = load_pretrained(directory, mesh=mesh, param_dtype=precision.params)
        model = Decoder(config, dtype=jnp.dtype(dtype), attention=placement.attention, remat=placement.remat,
                        logprobs=placement.logprobs, logprob_chunk=placement.logprob_chunk)  # fmt: skip
    return LoadedModel(
        directory=directory,
        digest=directory_digest(directory),
        model=model,
        params=params,
        tokenizer=load_tokenizer(directory),
        mesh=mesh,
        precision=precision,
    )


def directory_digest(directory: Path) -> str:
    """A hash of a model directory's weights, config and tokenizer: 32 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=16)
    kinds = ("*.safetensors", "*.bin", "*.json", "*.model")
    found = {path for kind in kinds for path in directory.glob(kind)} - {directory / INTEGRITY}
    for path in sorted(found):
        total.update(path.name.encode() + b"\0")
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return total.hexdigest()
