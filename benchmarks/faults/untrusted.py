"""Answers and pickles by somebody who means harm; and right answers, which are nothing but themselves."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import os
import pathlib
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.faults import hostile
from benchmarks.faults.hostile import ANSWERS, CANARY
from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.conversion.peft import load_adapters
from jaxrefine.conversion.pretrained import load_config
from jaxrefine.conversion.sources import open_source
from jaxrefine.judging import answers, grading_pool
from jaxrefine.judging.grading_pool import GradingPool, PoolConfig, _Worker
from tests.conversion.checkpoints import VARIANTS, tensors_of, write_checkpoint, write_pickle

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = pathlib.Path(os.environ.get("JAXREFINE_SHARED_DATA", ROOT.parent / "shared" / "data"))
HANG_SECONDS = 30.0
"""An answer that is over its limit by this much has not ended by it, however busy the machine is."""
Draw = np.random.Generator


def _largest_resident(pids: list[int]) -> float:
    """MB that any of these processes ever had resident; 0 where the system does not say."""
    found = [0.0]
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            found += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(found)


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without what a logger says, which here is of every answer that takes too long."""
    logger = logging.getLogger(name)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _answers(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    """Each through all that a solution goes through, with processes to ask."""
    wrong: list[str] = []
    overs, resident = [0.0], 0.0
    limit = 1.0
    with (
        _silent(grading_pool.__name__),
        contextlib.chdir(directory),
        GradingPool(PoolConfig(workers=2, deadline_seconds=limit)) as pool,
    ):
        for index in draw.permutation(len(ANSWERS)):
            text = ANSWERS[index]
            pool.start()  # a worker that was lost comes up again before the clock runs
            pids = [worker.process.pid for worker in pool._all]
            start = time.monotonic()
            answers.extract(f"So it is.\nThe answer is \\boxed{{{text}}}.", style="auto")
            outcome = answers.equivalent(text, str(draw.choice(["7", r"\oint 7"])), grader=pool)
            overs.append(time.monotonic() - start - limit)
            same = answers.equivalent(text, text, grader=None)
            resident = max(resident, _largest_resident(pids))
            turned = answers.equivalent("7", text, grader=None) == answers.equivalent(text, "7", grader=None)
            if outcome == "equal" or not turned or same not in ("equal", "no answer") or overs[-1] > HANG_SECONDS:
                wrong.append(f"{text[:40]!r}: {outcome}, itself {same}, {overs[-1]:+.1f} s")
        pool.start()
        if pool.alive != 2:
            wrong.append(f"{pool.alive} of 2 workers are there at the end")
    if left := sorted(path.name for path in directory.iterdir()):
        wrong.append(f"something was written: {left}")
    if resident > 512:
        wrong.append(f"a worker had {resident:.0f} MB")
    return Outcome(
        passed=not wrong,
        detail="; ".join(wrong[:3]),
        figures={"answers": float(len(ANSWERS)), "s_over_limit": max(overs), "resident_MB": resident},
    )


def _in_worker(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    """One answer straight to math-verify in a worker, past everything that would have kept it out."""
    text, limit = ANSWERS[int(draw.integers(len(ANSWERS)))], 1.0
    with contextlib.chdir(directory):
        worker = _Worker(PoolConfig(workers=1, deadline_seconds=limit))
    try:
        worker.wait_ready()
        start = time.monotonic()
        said = worker.ask(text, "7")
        over = time.monotonic() - start - limit
        resident = _largest_resident([worker.process.pid])
    finally:
        worker.end()
    written = sorted(path.name for path in directory.iterdir())
    verdict = "killed" if said is None else said["verdict"]
    return Outcome(
        passed=not written and verdict != "equal" and over <= HANG_SECONDS and resident <= 512,
        detail=f"{text[:40]!r}: {verdict}, {over:+.1f} s, {resident:.0f} MB, written: {written}",
        figures={"s_over_limit": over, "resident_MB": resident, "killed": float(said is None)},
    )


GQA = VARIANTS["llama-2-gqa"]
_ADAPTERS = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
_PARAMS = {"dim": 32, "n_layers": 1, "n_heads": 4, "vocab_size": 96, "multiple_of": 32, "norm_eps": 1e-5}


def _open(path: pathlib.Path) -> None:
    with open_source(path):
        pass


def _in_checkpoint(directory: pathlib.Path, write: Callable[[pathlib.Path], None]) -> Callable[[], object]:
    (directory / "config.json").write_text(json.dumps(GQA))
    write(directory / "pytorch_model.bin")
    return lambda: _open(directory)


def _in_shard(directory: pathlib.Path, write: Callable[[pathlib.Path], None]) -> Callable[[], object]:
    write_checkpoint(directory, GQA, tensors_of(GQA), layout="bin", num_shards=3)
    write(sorted(directory.glob("*.bin"))[1])
    return lambda: _open(directory)


def _in_consolidated(directory: pathlib.Path, write: Callable[[pathlib.Path], None]) -> Callable[[], object]:
    (directory / "params.json").write_text(json.dumps(_PARAMS))
    write(directory / "consolidated.00.pth")
    return lambda: _open(directory)


def _in_palm(directory: pathlib.Path, write: Callable[[pathlib.Path], None]) -> Callable[[], object]:
    write(directory / "palm.pt")
    return lambda: _open(directory / "palm.pt")


def _in_adapters(directory: pathlib.Path, write: Callable[[pathlib.Path], None]) -> Callable[[], object]:
    (directory / "adapter_config.json").write_text(json.dumps(_ADAPTERS))
    write(directory / "adapter_model.bin")
    (directory / "base").mkdir()
    (directory / "base" / "config.json").write_text(json.dumps(GQA))
    base, _ = load_config(directory / "base")
    return lambda: load_adapters(directory, base, family="llama")


PLACES = (_in_checkpoint, _in_shard, _in_consolidated, _in_palm, _in_adapters)
"""Wherever a pickle is looked for."""


def _twice(program: bytes, path: pathlib.Path) -> None:
    """Two pickles in one file, so that one may be checked and the other run."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("another/data.pkl", program)


def _nested(program: bytes, path: pathlib.Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive.zip", inner.getvalue())


FORMS: Mapping[str, Callable[[bytes, pathlib.Path], object]] = {
    "zip": lambda program, path: write_pickle(path, program, [bytes(4)]),
    "deflated zip": lambda program, path: write_pickle(path, program, [bytes(4)], compression=zipfile.ZIP_DEFLATED),
    "bare": lambda program, path: path.write_bytes(program),
    "two pickles": _twice,
    "zip in a zip": _nested,
}
_BESIDE = ("optimizer.pt", "training_args.bin", "rng_state.pth", "scheduler.pt", "tokenizer.pkl", "model.pickle")


def _pickled(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    canary = directory / CANARY
    programs = hostile.pickles(canary)
    which = list(programs)[int(draw.integers(len(programs)))]
    program, name = programs[which]
    form = list(FORMS)[int(draw.integers(len(FORMS)))]
    place = PLACES[int(draw.integers(len(PLACES)))]
    said = ""
    (directory / "model").mkdir()
    load = place(directory / "model", lambda path: FORMS[form](program, path))
    try:
        load()
    except ValueError as error:
        said = str(error)
    wrong = []
    if str(directory / "model") not in said or ("zip" in form and form != "zip in a zip" and name not in said):
        wrong.append(f"{which} {form} {place.__name__}: said {said[:300]!r}")
    beside = write_checkpoint(directory / "beside", GQA, tensors_of(GQA))
    for file in _BESIDE:
        FORMS[form](program, beside / file)
    np.save(beside / "weights.npy", np.array([hostile.Attack(os.system, f"touch {canary}")]), allow_pickle=True)
    _open(beside)
    for file in ("weights.npy", "tokenizer.pkl"):
        try:
            _open(beside / file)
            wrong.append(f"{file} was opened")
        except ValueError:
            pass
    if canary.exists():
        wrong.append(f"{which} {form} {place.__name__} was run")
    return Outcome(passed=not wrong, detail="; ".join(wrong))


def _golds(_: pathlib.Path) -> Iterator[list[str]]:
    """All known answers of MATH and GSM8K, five hundred at a time: each trial takes the next.

    Read without the library's readers, which would read all of it for the first five hundred.
    """
    stated: dict[str, Callable[[Mapping[str, str]], str | None]] = {
        "math/train_final_answers": lambda row: row["final_answer"],
        "math/test": lambda row: answers.extract(row["solution"], style="boxed"),
        "gsm8k/train": lambda row: row["answer"].rpartition("#### ")[2],
        "gsm8k/test": lambda row: row["answer"].rpartition("#### ")[2],
    }
    for name, read in stated.items():
        with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            known = [answer for line in file if (answer := (read(json.loads(line)) or "").strip())]
        order = np.random.default_rng(0).permutation(len(known))
        for start in range(0, len(known), 500):
            yield [known[index] for index in order[start : start + 500]]


def _itself(left: Iterator[list[str]], draw: Draw, directory: pathlib.Path) -> Outcome:
    known = next(left, [])
    wrong = [text for text in known if answers.equivalent(text, text, grader=None) != "equal"]
    wrong += [text for text in known if answers.equivalent(text, f" ${text}$ ", grader=None) != "equal"]
    boxed = [answers.extract(f"So it is \\boxed{{{text}}}.", style="boxed") for text in known]
    wrong += [text for text, found in zip(known, boxed, strict=True) if found is None or found.strip() != text.strip()]
    return Outcome(passed=not wrong, detail=f"{len(wrong)} such as {wrong[:3]}", figures={"answers": float(len(known))})


FAULTS = (
    Fault(
        name="S1",
        title=f"{len(ANSWERS)} hostile answers, through all that grades a solution",
        criterion="nothing runs; each ends within its limit of 1 s (the figure is by how much it does not); a worker "
        "has at most 512 MB; the pool is whole at the end; each equals itself, and nothing else",
        trial=_answers,
        num_trials=20,
        num_fast=1,
        baseline="Math-Verify 0.9.0 by itself, measured: of 18 such answers one hangs, 9 take all of its 5 s",
    ),
    Fault(
        name="S1-worker",
        title="one of them straight to math-verify in a worker, past what keeps it out",
        criterion="nothing runs; it ends within its limit of 1 s (the figure is by how much it does not), killed if "
        "need be; at most 512 MB",
        trial=_in_worker,
        num_trials=150,
        num_fast=2,
    ),
    Fault(
        name="S2",
        title="pickles that run something: 20 programs, 5 ways to pack them, everywhere that a pickle is looked for, "
        "and beside good weights",
        criterion="refused by the name of what it would run, or unread; nothing runs",
        trial=_pickled,
        num_trials=500,
        num_fast=20,
        baseline="CVE-2025-32434, published: torch before 2.6 runs them even with weights_only=True",
    ),
    *(
        [
            Fault(
                name="S6",
                title="every known answer of MATH and GSM8K against itself, bare, in dollars, boxed; 500 a trial",
                criterion="equal, all of them",
                trial=_itself,
                prepare=_golds,
                num_trials=43,
                num_fast=1,
                baseline="lm-eval, published: minerva_math calls 94.0 % of MATH-Hard's equal to themselves",
            )
        ]
        if DATA.is_dir()
        else []
    ),
)
