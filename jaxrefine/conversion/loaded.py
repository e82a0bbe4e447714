"""A model directory as the systems hold it: module, parameters on a mesh, tokenizer, digest."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxrefine.conversion.encoders import load_encoder
from jaxrefine.conversion.pretrained import load_pretrained, read_config
from jaxrefine.data.tokenizer import Tokenizer, load_tokenizer
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.families import ENCODERS
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.typing import Params

DType = Literal["auto", "float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model computes, and how."""

    dtype: DType = "auto"
    """Of the computation: fp32 on CPU, else bf16."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    num_devices: int | None = None
    """How many of the devices that are there; None is all."""
    attention: str = "expand"
    """Of a decoder, in training and scoring."""
    remat: str = "none"
    """In training."""
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
    family, _, _ = read_config(directory)
    dtype = placement.dtype
    if dtype == "auto":
        dtype = "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"
    model: Any
    if family.model_type in ENCODERS:
        encoder, params = load_encoder(directory, mesh=mesh)
        params = {part: tree for part, tree in params.items() if part != "classifier"}
        encoder = dataclasses.replace(encoder, num_labels=None)
        model = Encoder(encoder, dtype=jnp.dtype(dtype), pooling=placement.pooling, remat=placement.remat)
    else:
        config, params = load_pretrained(directory, mesh=mesh)
        model = Decoder(config, dtype=jnp.dtype(dtype), attention=placement.attention, remat=placement.remat)
    return LoadedModel(
        directory=directory,
        digest=directory_digest(directory),
        model=model,
        params=params,
        tokenizer=load_tokenizer(directory),
        mesh=mesh,
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
