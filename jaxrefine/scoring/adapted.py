"""Any objective with a model that stays as it is: low-rank adapters and new heads are all that is trained."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxrefine.config import unknown_name
from jaxrefine.data.batch import PackedBatch
from jaxrefine.models.lora import ADAPTERS, LoraConfig, applied, merged
from jaxrefine.models.quantized import QUANTIZED, dequantize_params, quantize_params
from jaxrefine.scoring.objectives import Objective
from jaxrefine.typing import Array, Bool, Float, Params

Base = Literal["as_given", "bfloat16", "int8", "nf4"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """What of a pretrained model is trained."""

    parameters: Literal["all", "adapters"] = "all"
    """Every parameter, or low-rank adapters (and new heads) over a model that stays as it is."""
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    """Of the adapters."""
    base: Base = "bfloat16"
    """How the model beneath adapters is kept."""

    def __post_init__(self) -> None:
        for field, allowed in (("parameters", ("all", "adapters")), ("base", get_args(Base))):
            if (given := getattr(self, field)) not in allowed:
                raise ValueError(unknown_name(given, allowed, f"tuning.{field}"))

    def __str__(self) -> str:
        """For reports.

        >>> str(TuningConfig()), str(TuningConfig(parameters="adapters", base="nf4"))
        ('all parameters', 'adapters of rank 16, alpha 32, over an nf4 base')
        """
        if self.parameters == "all":
            return "all parameters"
        base = {"as_given": "the base as it is", "bfloat16": "a bfloat16 base"}.get(self.base, f"an {self.base} base")
        return f"adapters of rank {self.lora.rank}, alpha {self.lora.alpha:g}, over {base}"


@dataclasses.dataclass(frozen=True)
class AdaptedObjective:
    """An objective whose parameters are adapters, and its scorer's head if it has one.

    Parameters: ``{"adapters": of init_adapters, "scorer": …}``; frozen: what ``freeze`` gives.

    Args:
      objective: with a ``Decoder`` or ``Encoder``.
      lora: of the adapters.
    """

    objective: Objective
    lora: LoraConfig

    def apply(
        self, variables: dict[str, Any], batch: PackedBatch, *, rngs: Any = None, method: str | None = None
    ) -> Any:
        """``objective.apply`` with the adapters at work; dropout where ``rngs`` has a key of that name.

        Args:
          variables: ``{"params": …, "frozen": …}``.
          batch: rows.
          rngs: ``{"dropout": key}`` in training.
          method: of the objective, by name; None is its call.
        """
        params, frozen = variables["params"], variables["frozen"]
        given: dict[str, Any] = {
            "params": {"model": frozen["model"], **{k: v for k, v in params.items() if k != "adapters"}},
            ADAPTERS: {"model": applied(params["adapters"], self.lora)},
        }
        if "quantized" in frozen:
            given[QUANTIZED] = {"model": frozen["quantized"]}
        return self.objective.apply(given, batch, rngs=rngs, method=method)

    def counts(self, batch: PackedBatch) -> dict[str, Float[Array, ""]]:
        """``objective.counts``."""
        return self.objective.counts(batch)

    def learns(self, batch: PackedBatch) -> Bool[Array, "B G"]:
        """``objective.learns``."""
        return self.objective.learns(batch)

    def plain_params(self, params: Params, frozen: Params) -> Params:
        """The parameters of ``objective`` itself that compute the same: adapters merged, quantised maps in bf16."""
        model = frozen["model"]
        if "quantized" in frozen:
            model = dequantize_params(model, frozen["quantized"], jnp.bfloat16)
        whole = merged(model, params["adapters"], self.lora)
        return {"model": whole, **{name: tree for name, tree in params.items() if name != "adapters"}}


def freeze(params: Params, base: Base = "bfloat16") -> Params:
    """A model's parameters as the frozen base of an ``AdaptedObjective``.

    Args:
      params: the tree of a ``Decoder`` or ``Encoder``.
      base: "as_given" keeps every dtype; "bfloat16" rounds matrices and leaves norms and biases; "int8" and "nf4"
        quantise the linear maps of the layers and round the other matrices to bf16.

    Returns:
      ``{"model": …}``, and ``"quantized"`` in 8 and 4 bits.

    Raises:
      ValueError: an unknown ``base``.

    >>> frozen = freeze({"layers": {"attention": {"query": {"kernel": jnp.ones((1, 2, 4))}}}}, "int8")
    >>> frozen["quantized"]["layers"]["attention"]["query"]["scales"].shape
    (1, 2, 1)
    """
    if base not in get_args(Base):
        raise ValueError(unknown_name(base, get_args(Base), "frozen base"))
    if base == "as_given":
        return {"model": params}
    quantized: Params = {}
    if base in ("int8", "nf4"):
        params, quantized = quantize_params(params, base)

    def rounded(path: Any, leaf: Any) -> Any:
        return leaf.astype(jnp.bfloat16) if path[-1].key in ("kernel", "embedding") else leaf

    model = jax.tree_util.tree_map_with_path(rounded, params)
    return {"model": model, "quantized": quantized} if quantized else {"model": model}
