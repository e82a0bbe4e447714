"""One comparison: its sides, the check that they compute the same thing, and its figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from benchmarks import measure
from benchmarks.peers.sides import Measured, Side
from benchmarks.peers.workload import Sizes
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.flops import Work, train_flops

Task = Literal["dpo", "sft", "sampling"]
OURS = "jaxrefine"
RANKING = "jaxrefine, margin ranking of N + likelihood"
PACKAGE = "benchmarks.peers"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pythons:
    """Of the environments that the peers are installed in; empty: there is none."""

    ours: str
    trl: str
    tunix: str
    transformers: str


def sides_of(task: Task, case: Mapping[str, Any], pythons: Pythons) -> list[Side]:
    """Ours first; then each peer in each way that it is measured."""
    own = Side(name=OURS, module=f"{PACKAGE}.ours", python=pythons.ours, case={**case, "task": task})
    kernels = " + Liger" if case["liger"] else ""
    theirs = {**case, "task": task, "needs": ["liger_kernel"] if case["liger"] else []}
    if task == "dpo":
        trl = {"module": f"{PACKAGE}.trl_dpo", "python": pythons.trl, "flag": "--trl-python"}
        ways = {"stored": "reference's log-probs stored", "each step": "reference run in each step, its default"}
        return [
            own,
            dataclasses.replace(own, name=RANKING, case={**case, "task": "ranking"}),
            *(
                Side(name=f"TRL DPO{kernels}, {what}", case={**theirs, "reference": reference}, **trl)
                for reference, what in ways.items()
            ),
        ]
    case = {**case, "task": task}
    if task == "sft":
        return [
            own,
            Side(name=f"TRL SFT{kernels}", module=f"{PACKAGE}.trl_sft", python=pythons.trl, case=theirs,
                 flag="--trl-python"),
            Side(name="tunix SFT", module=f"{PACKAGE}.tunix_sft", python=pythons.tunix, case=case,
                 flag="--tunix-python"),
        ]  # fmt: skip
    peer = {"module": f"{PACKAGE}.transformers_sampling", "flag": "--transformers-python"}
    return [own, Side(name="transformers generate", python=pythons.transformers, case=case, **peer)]


def work_of(task: Task, name: str, sizes: Sizes) -> Work | None:
    """What a side's own way of laying the candidates out needs; None where FLOPs are not what limits."""
    if task == "sampling":
        return None
    if name in (OURS, RANKING):
        return sizes.shared()
    return sizes.repeated(2 * (sizes.candidates - 1) * sizes.groups if task == "dpo" else sizes.groups)


def disagreement(task: Task, ours: Measured, other: Measured, tolerance: float) -> str:
    """Why two sides do not compute the same thing; empty where they do.

    The first loss must agree to ``tolerance`` of itself, DPO's with log 2 as well (policy and reference are one); the
    later ones, which every difference of gradient or optimiser enters, to ten times that of the first. Sampling: the
    greedy text.
    """
    if task == "sampling":
        mine, theirs = ours.facts["greedy"], other.facts["greedy"]
        equal = sum(one == two for one, two in zip(mine, theirs, strict=True))
        enough = len(mine) if tolerance <= 1e-3 else 1  # rounding to bf16 makes ties: a greedy text leaves its path
        return "" if equal >= enough else f"refused: {equal} of {len(mine)} greedy tokens are ours"
    if len(other.losses) != len(ours.losses) or not ours.losses:
        return f"refused: {len(other.losses)} losses, ours are {len(ours.losses)}"
    if task == "dpo" and not math.isclose(other.losses[0], math.log(2), rel_tol=tolerance):
        return f"refused: the first loss is {other.losses[0]:.6f}, not log 2 = {math.log(2):.6f}"
    for number, (mine, theirs) in enumerate(zip(ours.losses, other.losses, strict=True)):
        allowed = tolerance * (1 if number == 0 else 10)
        if not abs(mine - theirs) <= allowed * abs(ours.losses[0]):
            return (
                f"refused: loss {number + 1} is {theirs:.6f}, ours {mine:.6f}: more than {allowed:g} of the first apart"
            )
    return ""


def figures(
    task: Task,
    found: Mapping[str, Measured],
    *,
    sizes: Sizes,
    config: TransformerConfig,
    dtype: str,
    tolerance: float,
    new: int,
) -> list[dict[str, Any]]:
    """One row a side; what was not measured, or is not the same computation, has a reason and no figures.

    Returns:
      Rows with ``side``, ``reason``, ``seconds`` and ``cpu_seconds`` of a step (``measure.spread``), ``losses``,
      ``candidates_per_second``, ``tokens_per_second`` (of the candidates' own tokens, each once, on every side alike),
      ``mfu`` of the side's own layout, ``memory_bytes`` and what of it was there before the model, and ``ratio`` and
      ``cpu_ratio``: its time over ours, round by round.
    """
    ours = found[OURS]
    rows = []
    for name, one in found.items():
        reason = one.reason
        if not reason and ours.reason:
            reason = "refused: there is nothing of ours to hold it against"
        if not reason and name not in (OURS, RANKING):
            reason = disagreement(task, ours, one, tolerance)
        row: dict[str, Any] = {
            "task": task, "sizes": dataclasses.asdict(sizes), "side": name, "reason": reason, "losses": one.losses,
            "facts": {key: value for key, value in one.facts.items() if key not in ("event", "greedy")},
        }  # fmt: skip
        if not reason:
            seconds = measure.spread(one.seconds)
            candidates = sizes.groups * sizes.candidates
            work = work_of(task, name, sizes)
            peak = peak_of(str(one.facts.get("device")), dtype)
            row |= {
                "seconds": seconds,
                "cpu_seconds": measure.spread(one.cpu_seconds),
                "candidates_per_second": candidates / seconds["median"],
                "tokens_per_second": candidates * (new if task == "sampling" else sizes.response) / seconds["median"],
                "mfu": None
                if work is None or peak is None
                else train_flops(config, work) / seconds["median"] / peak,
                "memory": one.memory,
                "memory_bytes": one.memory_bytes,
                "imported_bytes": one.facts.get("imported_bytes", 0) if one.memory == "process" else 0,
            }  # fmt: skip
            if name != OURS:
                row |= {
                    "ratio": measure.ratios(one.seconds, ours.seconds),
                    "cpu_ratio": measure.ratios(one.cpu_seconds, ours.cpu_seconds),
                }
        rows.append(row)
    return rows


def peak_of(device: str, dtype: str) -> float | None:
    """FLOPs a second of the device that a side named; None where that is not known, or for anything but bf16.

    >>> peak_of("NVIDIA H200", "bfloat16")
    989000000000000.0
    """
    if dtype != "bfloat16":
        return None
    return next((flops for name, flops in measure.PEAK_BF16_FLOPS if name.lower() in device.lower()), None)


def row_named(rows: Sequence[Mapping[str, Any]], task: str, side: str, **sizes: int) -> Mapping[str, Any] | None:
    """The measured row of a side whose name begins so, at given sizes; None where there is none."""
    for row in rows:
        fits = all(row["sizes"][name] == value for name, value in sizes.items())
        if row["task"] == task and str(row["side"]).startswith(side) and fits and not row["reason"]:
            return row
    return None
