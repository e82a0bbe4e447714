"""The stages of a comparison of loss variants; each reads what earlier ones wrote, and goes on where it stopped."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress, say
from jaxrefine.artefacts.stages import input_directory
from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.data.arithmetic import generate
from jaxrefine.data.examples import Candidates
from jaxrefine.data.identity import is_held_out
from jaxrefine.data.readers import read_candidates, read_gsm8k_solutions, write_candidates
from jaxrefine.data.templates import TEMPLATES
from jaxrefine.evaluation.comparison import METRICS, compare
from jaxrefine.evaluation.report import print_table, write_report
from jaxrefine.evaluation.variant_data import Judged, cut_share, is_binary, judged_texts
from jaxrefine.evaluation.variant_held_out import HeldOut, ceiling, held_out, start_quality, unavailable
from jaxrefine.evaluation.variant_run import Runner, left_out, unit_from_record
from jaxrefine.evaluation.variant_sampling import sample_into, sampled
from jaxrefine.evaluation.variant_scoring import score_all
from jaxrefine.evaluation.variant_settings import Settings
from jaxrefine.evaluation.variant_training import Training, training
from jaxrefine.sampling.policies import Greedy

TRAIN, HELD_OUT, MODEL = "train.jsonl", "held_out.jsonl", "model.json"


def prompts(settings: Settings, directory: Path) -> None:
    """Training and held-out prompts, with a file's candidates where there is one; and which model it is."""
    if settings.candidates is None:
        train = _problems(settings, "train", settings.num_train)
        kept = _problems(settings, "test", settings.num_held_out)
    else:
        given = _read(settings)
        share = settings.held_out_share
        train = [row for row in given if not is_held_out(row.id, share)][: settings.num_train]
        kept = [row for row in given if is_held_out(row.id, share)][: settings.num_held_out]
        if not train or not kept:
            raise ValueError(
                f"{settings.candidates}: {len(given)} prompts give {len(train)} to train on and {len(kept)} held out; "
                "at least one of each is needed (held_out_share)"
            )
    write_candidates(directory / TRAIN, train)
    write_candidates(directory / HELD_OUT, kept)
    write_json(directory / MODEL, {"directory": str(settings.directory), "digest": _base(settings).digest})


def candidates(settings: Settings, directory: Path) -> None:
    """Each seed's samples of the training prompts, judged; nothing where the candidates came in a file."""
    if settings.candidates is not None:
        return
    base = _checked_base(settings, directory)
    train = _prompts(directory, TRAIN)
    for seed in settings.seeds:
        with Journal(directory / f"seed-{seed}.jsonl") as journal:
            sample_into(
                journal, base, train, num_samples=settings.num_candidates, policy=settings.policy,
                key=jax.random.fold_in(jax.random.key(seed), 0), lengths=settings.lengths,
                batch_size=settings.sampling_batch, description=f"candidates of seed {seed}",
                provenance=_provenance(settings, base, settings.policy, seed),
            )  # fmt: skip


def base(settings: Settings, directory: Path) -> None:
    """The base model's own answers to held-out prompts: greedy, and the samples common to all variants."""
    model = _checked_base(settings, directory)
    asked = [row for row in _prompts(directory, HELD_OUT) if row.answer is not None]
    jobs = [("greedy", Greedy, 1)]
    if settings.candidates is None:
        jobs.append(("samples", settings.policy, settings.num_base_samples))
    else:
        jobs.append(("votes", settings.policy, settings.num_votes))
    for name, policy, number in jobs:
        with Journal(directory / f"{name}.jsonl") as journal:
            sample_into(
                journal, model, asked, num_samples=number, policy=policy,
                key=jax.random.fold_in(jax.random.key(settings.base_seed), 1), lengths=settings.lengths,
                batch_size=settings.sampling_batch, description=f"base model, {name}",
                provenance=_provenance(settings, model, policy, settings.base_seed),
            )  # fmt: skip


def reference(settings: Settings, directory: Path) -> None:
    """Summed log-probs of all candidates under the base model: for reference losses, and the start's own scores."""
    model = _checked_base(settings, directory)
    jobs: dict[str, Sequence[Judged]] = {}
    jobs |= {f"seed-{seed}": data.judged for seed, data in _trainings(settings, directory, model, scored=False).items()}
    jobs["held_out"] = [row.judged for row in _held_out(settings, directory, model, scored=False)]
    for name, rows in jobs.items():
        with Journal(directory / f"{name}.jsonl") as journal:
            score_all(journal, rows, model, settings, description=f"reference scores, {name}")


def variants(settings: Settings, directory: Path) -> None:
    """Trains and measures every variant from every seed; a unit that is in the journal is not run again."""
    model = _checked_base(settings, directory)
    trainings = _trainings(settings, directory, model)
    rows = _held_out(settings, directory, model)
    absent = left_out(settings, trainings)
    for name, reason in absent.items():
        say(f"{name} is left out: {reason}")
    chosen = [variant for variant in settings.chosen if variant.name not in absent]
    units = [(seed, variant) for seed in settings.seeds for variant in chosen]
    runner = Runner(settings, model, trainings, rows)
    with Journal(directory / "units.jsonl") as journal:
        done = sum(f"{variant.name}/{seed}" in journal for seed, variant in units)
        with progress(len(units), "variants", initial=done, unit="runs") as bar:
            for seed, variant in units:
                key = f"{variant.name}/{seed}"
                if key in journal:
                    continue
                keep = directory / "weights" / f"{variant.name}-{seed}" if settings.keep_weights else None
                journal.append(key, runner.run(variant, seed, keep=keep))
                bar.advance(latest=key)
    write_json(directory / "left_out.json", absent)


def report(settings: Settings, directory: Path) -> None:
    """The table on the terminal, metrics.json, report.md and figures."""
    model = _checked_base(settings, directory)
    folder = input_directory(directory, "variants")
    with Journal(folder / "units.jsonl") as journal:
        units = [unit_from_record(record) for record in journal.records().values()]
    rows = _held_out(settings, directory, model)
    comparison = compare(
        units,
        control=settings.control,
        start=start_quality(rows, *_start_answers(settings, directory)),
        unavailable=unavailable(rows),
        left_out=read_json(folder / "left_out.json"),
        facts=_facts(settings, directory, model, rows),
        num_resamples=settings.num_resamples,
    )
    path = write_report(comparison, directory, title=settings.title)
    print_table(comparison)
    say(f"report: {path}")


_load_model = functools.lru_cache(maxsize=1)(load_model)


def _base(settings: Settings) -> LoadedModel:
    """Loaded once a process."""
    if jax.process_count() > 1:
        raise ValueError("the comparison of loss variants runs in one process (with as many devices as it has)")
    placement = Placement(
        dtype=settings.dtype,
        mesh=settings.mesh,
        num_devices=settings.num_devices,
        attention=settings.attention,
        remat=settings.remat,
    )
    return _load_model(settings.directory, placement)


def _checked_base(settings: Settings, directory: Path) -> LoadedModel:
    loaded = _base(settings)
    known = read_json(input_directory(directory, "prompts") / MODEL)["digest"]
    if loaded.digest != known:
        raise ValueError(
            f"{settings.directory}: the model is not the one that this comparison was started with (digest "
            f"{loaded.digest}, then {known}); put it back, or start in another --workdir"
        )
    return loaded


def _problems(settings: Settings, split: str, number: int) -> list[Candidates]:
    template = TEMPLATES["question"]
    return [
        Candidates(problem.id, template.render(question=problem.question), answer=str(problem.answer))
        for problem in generate(split, number, settings.problems_seed, settings.problems)
    ]


def _read(settings: Settings) -> list[Candidates]:
    path = Path(str(settings.candidates)).expanduser()
    if settings.candidates_format == "gsm8k_solutions":
        return read_gsm8k_solutions(path)
    return read_candidates(path, min_candidates=2)


def _prompts(directory: Path, name: str) -> list[Candidates]:
    return read_candidates(input_directory(directory, "prompts") / name, min_candidates=0)


def _provenance(settings: Settings, model: LoadedModel, policy: Any, seed: int) -> dict[str, Any]:
    return {"model": model.digest, "policy": dataclasses.asdict(policy), "seed": seed}


def _trainings(settings: Settings, directory: Path, model: LoadedModel, *, scored: bool = True) -> dict[int, Training]:
    train = _prompts(directory, TRAIN)
    found = {}
    for seed in settings.seeds:
        if settings.candidates is None:
            with Journal(input_directory(directory, "candidates") / f"seed-{seed}.jsonl") as journal:
                judged = sampled(journal, train)
        else:
            judged = [judged_texts(row) for row in train]
        known = _reference(directory, f"seed-{seed}", scored)
        found[seed] = training(judged, model.tokenizer, settings, known, seed=seed)
    return found


def _held_out(settings: Settings, directory: Path, model: LoadedModel, *, scored: bool = True) -> list[HeldOut]:
    rows = _prompts(directory, HELD_OUT)
    judged: Sequence[Judged]
    if settings.candidates is None:
        with Journal(input_directory(directory, "base") / "samples.jsonl") as journal:
            judged = sampled(journal, rows)
    else:
        judged = [judged_texts(row) for row in rows]
    known = _reference(directory, "held_out", scored)
    return held_out(judged, model.tokenizer, settings, known, is_binary=is_binary(judged))


def _reference(directory: Path, name: str, scored: bool) -> dict[Any, Any] | None:
    if not scored:
        return None
    with Journal(input_directory(directory, "reference") / f"{name}.jsonl") as journal:
        return journal.records()


def _start_answers(settings: Settings, directory: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Records of the base model's greedy solutions and of its votes, by prompt."""
    folder = input_directory(directory, "base")
    votes = "samples" if settings.candidates is None else "votes"
    found = []
    for name in ("greedy", votes):
        with Journal(folder / f"{name}.jsonl") as journal:
            found.append({str(key): record["samples"] for key, record in journal.records().items()})
    return found[0], found[1]


def _facts(settings: Settings, directory: Path, model: LoadedModel, rows: Sequence[HeldOut]) -> dict[str, Any]:
    device = model.mesh.devices.flat[0]
    trainings = _trainings(settings, directory, model)
    train = [group for data in trainings.values() for group in data.groups]
    kept = [row.group for row in rows if row.group is not None]
    ranked = ", ".join(f"{len(data.groups)} (seed {seed})" for seed, data in trainings.items())
    return {
        "model": f"{settings.directory.name} ({model.digest[:12]})",
        "candidates": settings.candidates
        or f"{settings.num_candidates} samples a prompt at temperature "
        f"{settings.policy.temperature:g} of the shipped word problems",
        "training prompts with candidates of different labels": ranked,
        "held-out prompts": len(rows),
        "candidates cut by length": f"{100 * cut_share([*train, *kept], settings.lengths.response):.1f} %",
        "best that re-ranking could reach": "–" if (best := ceiling(rows)) is None else f"{100 * best:.1f} %",
        "training": f"{settings.steps} steps of {settings.groups_per_step} prompts; seeds {list(settings.seeds)}",
        "trained": str(settings.tuning),
        "device": f"{model.mesh.size} x {device.device_kind}, {model.model.dtype}, jax {jax.__version__}",
        "metrics": f"{len(METRICS) - len(unavailable(rows))} of {len(METRICS)} could be measured",
    }
