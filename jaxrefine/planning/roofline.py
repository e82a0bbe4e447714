"""How long a step must take at least, and which model FLOPs utilisation that leaves: formulas, no measurement.

    step >= max(executed FLOPs / (devices · u · peak), bytes sent / link) + bytes of the update / memory bandwidth
    MFU_max = u · 6 / (6 + r)        r = 2 when every forward product is computed again, 0 when none is
    compute-bound under FSDP         iff tokens / (device and microbatch) >= peak / link

u is the share of the peak that large products reach, an assumption stated with each chip. Collectives are taken to
overlap with the products; attention is counted as its backend computes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrefine.data.batch import PackedBatch
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.flops import Work, batch_work, forward_flops
from jaxrefine.planning.collectives import Collective, collective_seconds
from jaxrefine.planning.topology import Chip, Topology

_RECOMPUTED = {"none": 0.0, "dots": 0.0}
"""Share of the layers' weight products that a remat policy computes again; of those not named here, all."""
_FEED_FORWARD = ("minimal", "offload")
"""Policies that compute the feed-forward block's wide products again, and no other."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
    """A step at its fastest."""

    model_flops: float
    """Of a step, all devices: what the mathematics needs."""
    executed_flops: float
    """With what is computed again and what attention computes beyond what is visible."""
    compute_seconds: float
    collective_seconds: float
    update_seconds: float
    mfu: float
    """Model FLOPs over the step's time at peak: the most that can be reached here."""
    mfu_max: float
    """u · 6 / (6 + r), the same with no network and no update."""
    tokens: int
    """Of a step."""
    tokens_per_device: float
    """And microbatch."""
    tokens_needed: float
    """Of a device and microbatch, for products to take longer than gathering weights."""

    @property
    def step_seconds(self) -> float:
        """At the fastest."""
        return max(self.compute_seconds, self.collective_seconds) + self.update_seconds

    @property
    def is_compute_bound(self) -> bool:
        """By the formula for FSDP."""
        return self.tokens_per_device >= self.tokens_needed


def layers_recomputed(remat: str, model: TransformerConfig | EncoderConfig) -> float:
    """Share of the layers' weight products that a remat policy computes again.

    >>> model = TransformerConfig(vocab_size=10, width=4, num_layers=1, num_heads=2, num_kv_heads=2, head_width=2,
    ...                           hidden_width=8)
    >>> layers_recomputed("full", model), layers_recomputed("dots", model)
    (1.0, 0.0)
    >>> layers_recomputed("minimal", model)  # 2·4·8 of 4·4·4 + 3·4·8
    0.4
    """
    if remat not in _FEED_FORWARD:
        return _RECOMPUTED.get(remat, 1.0)
    heads = model.num_heads + getattr(model, "num_kv_heads", model.num_heads)
    wide = 1 + getattr(model, "gated", False)
    return float(wide * model.hidden_width / (2 * heads * model.head_width + (1 + wide) * model.hidden_width))


def mfu_max(chip: Chip, remat: str, model: TransformerConfig | EncoderConfig) -> float:
    """The share of the peak u · 6 / (6 + r), r = 2 · the share of the layers that is computed again.

    >>> from jaxrefine.planning.shapes import model_shape
    >>> from jaxrefine.planning.topology import CHIPS
    >>> [mfu_max(CHIPS["h100"], remat, model_shape("llama-7b")) for remat in ("full", "none")]
    [0.5625, 0.75]
    """
    return chip.efficiency * 6 / (6 + 2 * layers_recomputed(remat, model))


def tokens_needed(topology: Topology) -> float:
    """Tokens of a device (and microbatch) from which on FSDP is bound by compute.

    >>> from jaxrefine.planning.topology import parse_topology
    >>> [round(tokens_needed(parse_topology(name))) for name in ("v5p-16", "h100x8", "h100x16")]
    [2550, 2198, 19780]
    """
    chip = topology.chip
    return chip.flops / (chip.link if topology.is_one_domain else chip.outside)


def work_of(config: TransformerConfig, rows: PackedBatch) -> Work:
    """The work in a step's rows."""
    return batch_work(rows, window=config.window if any(config.windowed_layers) else None)


def attended_pairs(attention: str, rows: PackedBatch, visible: int) -> int:
    """Pairs of query and key that a backend computes in a layer: tiles that it skips are as good as never visible."""
    batch, slots = np.shape(rows.tokens)
    if attention == "dense":
        return int(batch * slots * slots)
    if attention in ("expand", "cudnn") and rows.paths is not None:
        each, length = rows.paths.shape[1:]
        pairs = int(batch * each * length * length)
        return pairs if attention == "expand" else pairs // 2
    return visible


def roofline(
    config: TransformerConfig,
    rows: PackedBatch,
    *,
    topology: Topology,
    remat: str,
    attention: str,
    num_microbatches: int,
    row_shards: int,
    updated_bytes: int,
    sent: Sequence[Collective] = (),
) -> Roofline:
    """The formulas of this module for one step.

    Args:
        config: of the decoder.
        rows: of the step, all of them.
        topology: what it runs on.
        remat: policy of the layers.
        attention: backend.
        num_microbatches: A.
        row_shards: devices among which rows are split.
        updated_bytes: that the update reads and writes on one device.
        sent: collectives of the compiled step; without them no time is counted for the network.
    """
    work, chip = work_of(config, rows), topology.chip
    forward = forward_flops(config, work)
    head = forward - forward_flops(config, dataclasses.replace(work, scored=0))
    scores = attended_pairs(attention, rows, work.pairs) - work.pairs
    beyond = 4 * config.num_layers * config.num_heads * config.head_width * max(scores, 0)
    pairs = forward_flops(config, dataclasses.replace(work, tokens=0, scored=0)) + beyond
    weights = forward - head - (pairs - beyond)
    # Backends without stored scores, and remat policies that keep none, compute them again whatever the policy.
    again = layers_recomputed(remat, config) * weights + head + (0 if remat == "none" else pairs)
    executed = 3 * (forward + beyond) + again
    compute = executed / (topology.num_devices * chip.flops * chip.efficiency)
    network = sum(collective_seconds(item, topology) for item in sent)
    update = updated_bytes / chip.bandwidth
    seconds = max(compute, network) + update
    return Roofline(
        model_flops=3.0 * forward,
        executed_flops=float(executed),
        compute_seconds=compute,
        collective_seconds=network,
        update_seconds=update,
        mfu=3 * forward / (seconds * topology.num_devices * chip.flops),
        mfu_max=mfu_max(chip, remat, config),
        tokens=work.tokens,
        tokens_per_device=work.tokens / (row_shards * num_microbatches),
        tokens_needed=tokens_needed(topology),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeRoofline:
    """One step of all candidates at its fastest: weights and caches are read once."""

    read_bytes: int
    """On one device."""
    step_seconds: float
    tokens_per_second: float
    """All devices, all slots at work."""


def decode_roofline(
    *, weight_bytes: int, cache_bytes: int, flops: float, slots: int, topology: Topology
) -> DecodeRoofline:
    """T >= max((weights + caches) / memory bandwidth, FLOPs / peak), on one device.

    Args:
        weight_bytes: on one device.
        cache_bytes: likewise, prompts' and candidates'.
        flops: of one step, all devices.
        slots: candidates that grow at once, all devices.
        topology: what it runs on.
    """
    chip = topology.chip
    read = weight_bytes + cache_bytes
    seconds = max(read / chip.bandwidth, flops / (topology.num_devices * chip.flops * chip.efficiency))
    return DecodeRoofline(read_bytes=read, step_seconds=seconds, tokens_per_second=slots / seconds)


def updated_bytes(params: Any, moments: int) -> int:
    """Bytes that an update moves on one device: parameters and moments read and written, fp32 gradients read."""
    return 2 * (params + moments) + params
