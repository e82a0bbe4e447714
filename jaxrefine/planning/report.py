"""A plan for people, as lines, and for programs, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrefine.models.flops import batch_work
from jaxrefine.planning.plan import PlanResult, versions
from jaxrefine.planning.roofline import Roofline
from jaxrefine.training.memory import Buffer, gib

_MOST_REMEDIES = 10


def report(result: PlanResult) -> str:
    """All that a plan knows, some forty lines."""
    sections = [
        _header(result),
        _memory(result),
        _sent(result),
        _speed(result),
        _sampler(result),
        _remedies(result),
        _trials(result),
        _others(result),
    ]
    return "\n\n".join(section for section in sections if section)


def _header(result: PlanResult) -> str:
    setup, made, topology = result.setup, result.made, result.topology
    sizes = " × ".join(f"{name} {size}" for name, size in setup.sizes(topology.num_devices).items())
    parts, rows, slots = made.batch.tokens.shape
    shape = "×".join(map(str, topology.shape))
    verdict = "fits" if result.fits else "DOES NOT FIT"
    prompts = f"{setup.training.groups_per_step} prompts with {setup.num_candidates} candidates"
    filled = batch_work(made.rows).tokens / made.rows.tokens.size
    remark = f" ({result.remark})" if result.remark else ""
    lines = {
        "hardware": f"{topology.num_devices} × {topology.chip.name} ({shape}), {sizes}",
        "parameters": f"{made.num_params:,}, trained {made.num_trained:,}",
        "step": f"{prompts}, as {parts} microbatches × {rows} rows × {slots} tokens, {filled:.0%} filled",
        "policy": f"remat {setup.remat}, attention {setup.attention}{remark}",
    }
    title = f"{result.config}, {result.training}: {result.model} on {topology.name}: {verdict}"
    return "\n".join([title, *_table(lines)])


def _memory(result: PlanResult) -> str:
    predicted, available = result.predicted, result.topology.chip.memory_bytes
    compiled = result.compiled
    title = "memory of a device, GiB        compiled  predicted"
    rows: list[tuple[str, int | None, int]] = []
    used = compiled.memory if compiled is not None else None
    for kind in ("parameters", "optimizer", "frozen", "batch", "temporaries", "total"):
        expected = getattr(predicted, kind)
        found = getattr(used, kind) if used is not None else None
        if expected or found:
            rows.append((kind, found, expected))
    lines = [title]
    for kind, found, expected in rows:
        lines.append(f"  {kind:<26}{'–' if found is None else gib(found):>11}{gib(expected):>11}")
        if kind == "temporaries":
            parts = (("gradients", predicted.gradients), ("activations", predicted.activations),
                     ("one layer", predicted.layer), ("log-probs", predicted.logprobs))  # fmt: skip
            lines += [f"    {name:<24}{'':>11}{gib(size):>11}" for name, size in parts if size]
    if result.refusal is not None:
        lines.append(f"  the compiler refuses it: {gib(result.refusal.need)} of {gib(result.refusal.have)} GiB")
    lines.append(f"  {'available':<26}{gib(available):>11}")
    if result.topology.chip.platform == "gpu" and result.need > 0.75 * available and result.fits:
        lines.append("  JAX takes 75 % of a GPU unless told otherwise: XLA_PYTHON_CLIENT_MEM_FRACTION=.95")
    largest = used.largest if used is not None else result.refusal.largest if result.refusal is not None else ()
    if largest:
        lines += ["  largest buffers:", *(f"    {buffer}" for buffer in largest)]
    if compiled is not None:
        lines.append(f"  compiled in {compiled.compile_seconds:.0f} s")
    return "\n".join(lines)


def _sent(result: PlanResult) -> str:
    if result.compiled is None:
        return ""
    lines = ["collectives of a step        group   count  GiB sent a device"]
    for item in result.compiled.sent:
        mark = "" if item.is_complete else "  (in a loop of unknown length, counted once)"
        lines.append(f"  {item.kind:<24}{item.group:>8}{item.count:>8}{gib(item.bytes):>19}{mark}")
    return "\n".join(lines) if len(lines) > 1 else "collectives of a step: none"


def _speed(result: PlanResult) -> str:
    found = result.roofline
    if found is None:
        return "speed: an encoder's FLOPs are not counted"
    chip = result.topology.chip
    bound = "bound by compute" if found.is_compute_bound else "NOT bound by compute: more tokens a device would help"
    products = f"products at {chip.efficiency:.0%} of {chip.flops / 1e12:.0f} TFLOP/s"
    lines = {
        "model FLOPs": f"{found.model_flops:.3e} a step, {found.executed_flops:.3e} executed",
        "seconds": f"compute {found.compute_seconds:.3g} ({products}), network {found.collective_seconds:.3g}, "
        f"update {found.update_seconds:.3g}",
        "step": f"{found.step_seconds:.3g} s, {_per_second(found, result)}",
        "MFU": f"{found.mfu:.1%} of {found.mfu_max:.1%} with this policy and no network",
        "tokens": f"{found.tokens_per_device:,.0f} a device and microbatch, of {found.tokens_needed:,.0f} that FSDP "
        f"needs: {bound}",
    }
    return "\n".join(["speed at the most, by formula (nothing was measured)", *_table(lines)])


def _per_second(found: Roofline, result: PlanResult) -> str:
    prompts = result.setup.training.groups_per_step / found.step_seconds
    return f"{found.tokens / found.step_seconds:,.0f} tokens and {prompts:,.1f} prompts a second"


def _sampler(result: PlanResult) -> str:
    if result.sampler_refusal is not None:
        return f"sampling does not fit: {result.sampler_refusal}"
    found = result.sampler
    if found is None:
        return ""
    lines = [
        f"sampling: {found.rows} rows × {found.columns} candidates, prompts of {found.prompt}, texts of {found.room}",
        "  GiB of a device     weights     caches  temporaries      total",
    ]
    for program in found.programs:
        mark = "" if program.fits else "  DOES NOT FIT"
        lines.append(
            f"  {program.name:<16}{gib(program.weights):>11}{gib(program.caches):>11}{gib(program.temporaries):>13}"
            f"{gib(program.total):>11}{mark}"
        )
    speed = found.roofline
    lines.append(
        f"  a step of all candidates reads {gib(speed.read_bytes)} GiB a device: at least "
        f"{1000 * speed.step_seconds:.2f} ms, at most {speed.tokens_per_second:,.0f} tokens a second"
    )
    return "\n".join(lines)


def _remedies(result: PlanResult) -> str:
    if not result.remedies:
        return "" if result.fits else "nothing that is known helps: take more devices"
    lines = ["what would help, predicted"]
    available = result.topology.chip.memory_bytes
    over = result.need - available
    for remedy in result.remedies[:_MOST_REMEDIES]:
        enough = "enough" if remedy.saves >= over else ""
        lines.append(f"  −{gib(remedy.saves):>7} GiB  {enough:<7} {remedy.change}  ({remedy.costs})")
    return "\n".join(lines)


def _trials(result: PlanResult) -> str:
    if not result.trials:
        return ""
    lines = ["search, compiled, the fastest first       GiB  predicted"]
    for trial in result.trials:
        mark = "fits" if trial.fits else "does not fit"
        lines.append(f"  {trial.change:<36}{gib(trial.need):>8}{gib(trial.predicted):>11}  {mark}")
    if not result.trials[-1].fits:
        lines.append("  none of these fits")
    return "\n".join(lines)


def _others(result: PlanResult) -> str:
    if not result.others:
        return ""
    names = ", ".join(f"{name} {gib(total)}" for name, total in result.others.items())
    return f"other fine-tunings of {result.config}, predicted GiB (--training NAME plans one): {names}"


def _table(lines: Mapping[str, str]) -> list[str]:
    width = max(map(len, lines))
    return [f"  {name:<{width}}  {value}" for name, value in lines.items()]


def as_json(result: PlanResult) -> dict[str, Any]:
    """The same as plain JSON; sizes in bytes, times in seconds."""
    setup, topology = result.setup, result.topology
    compiled = result.compiled
    return {
        "config": result.config,
        "training": result.training,
        "model": result.model,
        "topology": {
            "name": topology.name,
            "chip": dataclasses.asdict(topology.chip),
            "shape": list(topology.shape),
            "devices": topology.num_devices,
        },
        "mesh": setup.sizes(topology.num_devices),
        "remat": setup.remat,
        "attention": setup.attention,
        "num_params": result.made.num_params,
        "num_trained": result.made.num_trained,
        "rows": list(result.made.batch.tokens.shape),
        "fits": result.fits,
        "need": result.need,
        "available": topology.chip.memory_bytes,
        "predicted": dataclasses.asdict(result.predicted) | {"total": result.predicted.total},
        "compiled": None if compiled is None else {
            "memory": {
                name: value for name, value in dataclasses.asdict(compiled.memory).items() if name != "largest"
            },
            "largest": _buffers(compiled.memory.largest),
            "collectives": [dataclasses.asdict(item) for item in compiled.sent],
            "seconds": compiled.compile_seconds,
        },
        "refused": None if result.refusal is None else {
            "need": result.refusal.need, "have": result.refusal.have, "largest": _buffers(result.refusal.largest)
        },
        "roofline": None if result.roofline is None else dataclasses.asdict(result.roofline) | {
            "step_seconds": result.roofline.step_seconds, "is_compute_bound": result.roofline.is_compute_bound
        },
        "sampler": None if result.sampler is None else dataclasses.asdict(result.sampler),
        "remedies": [
            {"change": remedy.change, "costs": remedy.costs, "saves": remedy.saves, "total": remedy.total}
            for remedy in result.remedies
        ],
        "search": [
            {"change": trial.change, "need": trial.need, "predicted": trial.predicted, "fits": trial.fits}
            for trial in result.trials
        ],
        "others": result.others,
        "versions": versions(),
    }  # fmt: skip


def _buffers(buffers: Sequence[Buffer]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(buffer) for buffer in buffers]
