"""Attention over packed rows: backends by name, all exact, none chosen silently.

``dense`` scores every pair of slots of a row under the tree mask: the reference. ``expand`` lays every
root-to-leaf path of the row out by itself and runs plain causal attention on it; only queries, keys and values are
copied, so all matmuls of the layer still see each prompt once. Both run anywhere. ``cudnn`` is ``expand`` through
cuDNN's kernel, for NVIDIA GPUs; ``splash`` is the tree mask through a kernel that skips what nobody sees, for TPUs.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

from jaxrefine.config import unknown_name
from jaxrefine.models.attention_scores import Attend, ScoreRule, needs_positions
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.cudnn import check_cudnn, cudnn
from jaxrefine.models.masks import hide, tree_mask
from jaxrefine.models.path_layout import PathLayout, path_layout
from jaxrefine.models.products import einsum_fp32
from jaxrefine.models.splash import SLOT_MULTIPLE, check_splash, splash
from jaxrefine.typing import Array, Bool, Float, Int

_log = logging.getLogger(__name__)


def attend(
    q: Float[Array, "B S Q H"],
    k: Float[Array, "B U K H"],
    v: Float[Array, "B U K H"],
    visible: Bool[Array, "#B S U"],
    rule: ScoreRule | None = None,
    positions: tuple[Int[Array, "#B S"], Int[Array, "#B U"]] | None = None,
) -> Float[Array, "B S Q H"]:
    """softmax(score(q, k)) v over visible keys, the softmax in fp32.

    Query heads that share a key-value head are an axis of the product: keys and values are never repeated.

    Args:
      q: queries.
      k: keys; K divides Q.
      v: values.
      visible: which key each query sees; a query that sees none gets the mean of all values.
      rule: how products become scores; None: q · k / sqrt(H).
      positions: of queries and keys; needed where the rule has a bias or a window.

    Returns:
      Like ``q``.

    >>> one = jnp.ones((1, 1, 2, 4))
    >>> attend(one, one[:, :, :1], one[:, :, :1], jnp.ones((1, 1, 1), bool)).shape
    (1, 1, 2, 4)

    Source: Ainslie et al. 2023, arXiv:2305.13245 (grouped queries).
    """
    B, S, Q, H = q.shape
    K = k.shape[2]
    grouped = q.reshape(B, S, K, Q // K, H)
    scores = einsum_fp32("bskgh,bukh->bkgsu", grouped, k) / (math.sqrt(H) if rule is None else rule.divisor)
    if rule is not None:
        scores, visible = _ruled(scores, jnp.asarray(visible), rule, positions)
    weights = jax.nn.softmax(hide(scores, visible[:, None, None]), axis=-1).astype(v.dtype)
    return jnp.einsum("bkgsu,bukh->bskgh", weights, v).reshape(B, S, Q, H)


def _ruled(scores: jax.Array, visible: jax.Array, rule: ScoreRule, positions: Any) -> tuple[jax.Array, jax.Array]:
    """Cap, bias and window: scores [B K G S U] and what is visible [B S U]."""
    scores = jnp.asarray(rule.capped(scores))
    if not rule.by_position:
        return scores, visible
    queries, keys = jnp.asarray(positions[0])[:, :, None], jnp.asarray(positions[1])[:, None, :]
    bias, near = rule.bias(queries, keys), rule.near(queries, keys)
    if bias is not None:
        scores = scores + jnp.moveaxis(bias.reshape(*scores.shape[1:3], *bias.shape[1:]), 2, 0)
    return scores, visible if near is None else visible & near


def _dense(
    visible: jax.Array,
    positions: jax.Array | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    state: Any = None,
    rule: ScoreRule | None = None,
) -> tuple[Array, Any]:
    out = attend(q, k, v, visible, rule, None if positions is None else (positions, positions))
    return checkpoint_name(out, "attention"), state


def _expand(
    layout: PathLayout,
    positions: jax.Array | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    state: Any = None,
    rule: ScoreRule | None = None,
) -> tuple[Array, Any]:
    X = layout.slots.shape[-1]
    causal = jnp.tril(jnp.ones((1, X, X), bool))
    pair = None if positions is None else (positions, positions)
    out = attend(layout.along(q), layout.along(k), layout.along(v), causal, rule, pair)
    return checkpoint_name(layout.home(out), "attention"), state


def dense(
    *,
    ends: Int[Array, "B S"],
    paths: Any = None,
    homes: Any = None,
    positions: Int[Array, "B S"] | None = None,
    config: Any = None,
) -> Attend:
    """Every pair of slots of a row, under the tree mask of ``ends``; paths and homes are not needed."""
    del paths, homes, config
    return Partial(_dense, tree_mask(ends), None if positions is None else jnp.asarray(positions))


def expand(
    *,
    ends: Any = None,
    paths: Int[Array, "B E X"] | None = None,
    homes: Int[Array, "B S"] | None = None,
    positions: Int[Array, "B S"] | None = None,
    config: Any = None,
) -> Attend:
    """Plain causal attention along each root-to-leaf path.

    Args:
      ends: not needed.
      paths: slots along each path, padded at its end with -1.
      homes: flat index e * X + x from which each slot takes its output.
      positions: of each slot.
      config: not needed.

    Raises:
      ValueError: a batch packed without paths and homes.
    """
    del ends, config
    layout = path_layout("expand", paths, homes)
    if positions is not None:
        positions = layout.along(jnp.asarray(positions)[..., None])[..., 0]
    return Partial(_expand, layout, positions)


def _takes_anything(config: TransformerConfig, dtype: Any, slots: int) -> None:
    """No limits."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """One way to compute attention over packed rows."""

    prepare: Callable[..., Attend]
    """From a batch's ends, paths, homes and positions and the decoder's config to what every layer calls: once a step,
    outside the scan over layers."""
    runs_on: str
    """ "any", "gpu" or "tpu"."""
    reads_paths: bool = False
    """It needs ``PackingConfig(expand=True)``."""
    slot_multiple: int = 1
    """A row has a multiple of so many slots."""
    check: Callable[[TransformerConfig, Any, int], None] = _takes_anything
    """Raises ``ValueError`` on a config, a dtype or a number of slots that it cannot compute."""


ATTENTION: dict[str, Backend] = {
    "dense": Backend(dense, "any"),
    "expand": Backend(expand, "any", reads_paths=True),
    "cudnn": Backend(cudnn, "gpu", reads_paths=True, check=check_cudnn),
    "splash": Backend(splash, "tpu", slot_multiple=SLOT_MULTIPLE, check=check_splash),
}
"""Name -> backend."""

ANYWHERE = tuple(name for name, backend in ATTENTION.items() if backend.runs_on == "any")
"""The backends that run on every kind of device."""


def attention_backend(name: str) -> Backend:
    """The backend of a name.

    Raises:
      ValueError: an unknown name, with the nearest.

    >>> attention_backend("splash").slot_multiple
    128
    """
    if name not in ATTENTION:
        raise ValueError(unknown_name(name, ATTENTION, "attention backend"))
    return ATTENTION[name]


def check_platform(name: str, platform: str) -> None:
    """Refuses a backend on devices that it does not run on.

    Args:
      name: a key of ``ATTENTION``.
      platform: of the devices, as jax names it.

    Raises:
      ValueError: an unknown name, or a backend for other devices.

    >>> check_platform("expand", "cpu")
    """
    runs_on = attention_backend(name).runs_on
    if runs_on not in ("any", platform):
        raise ValueError(
            f"attention={name!r} runs on {runs_on.upper()}s alone, and these devices are of platform {platform!r}; "
            f"on any device run: {', '.join(ANYWHERE)}"
        )


def reads_paths(model: Any) -> bool:
    """Whether a model's batches are to be packed with ``expand=True``; an encoder's need not."""
    name = getattr(model, "attention", None)
    return name is not None and attention_backend(name).reads_paths


def slot_multiple(model: Any) -> int:
    """What the rows of a model's batches are a multiple of; 32 where its attention takes any, for fewer shapes."""
    name = getattr(model, "attention", None)
    return 32 if name is None else max(32, attention_backend(name).slot_multiple)


def make_attend(
    name: str,
    *,
    config: TransformerConfig,
    dtype: Any,
    ends: Int[Array, "B S"],
    positions: Int[Array, "B S"],
    paths: Int[Array, "B E X"] | None = None,
    homes: Int[Array, "B S"] | None = None,
) -> Attend:
    """The named backend, prepared for one batch; its name is logged whenever a program is traced.

    Args:
      name: a key of ``ATTENTION``.
      config: of the decoder.
      dtype: of the computation.
      ends: of the batch.
      positions: of the batch; what does not depend on them is not given them.
      paths: of the batch, if it has them.
      homes: of the batch, if it has them.

    Raises:
      ValueError: an unknown name, or what the backend cannot compute: says what was given and what is allowed.
    """
    backend = attention_backend(name)
    backend.check(config, dtype, ends.shape[-1])
    _log.info("attention: %s, rows of %d slots, %d heads of width %d in %s", name, ends.shape[-1], config.num_heads,
              config.head_width, jnp.dtype(dtype).name)  # fmt: skip
    where = positions if needs_positions(config) else None
    return backend.prepare(ends=ends, paths=paths, homes=homes, positions=where, config=config)
