"""T4, T7 to T9: processes killed, told to stop, without disk or without their peers."""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.faults import victims
from benchmarks.faults.damage import flip
from benchmarks.faults.runs import digest, records
from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.artefacts.integrity import damages, read_integrity
from jaxrefine.training.checkpoints import CheckpointConfig, Checkpoints

_KEEP = CheckpointConfig(keep=3)


_TRAINED_STEPS = 60


def _reference(shared: pathlib.Path) -> tuple[str, list[Mapping[str, Any]]]:
    """The training that nobody stops."""
    state = victims.training(shared / "whole", _TRAINED_STEPS)
    return digest(state), records(shared / "whole")


def _training_killed(
    whole: tuple[str, list[Mapping[str, Any]]], generator: np.random.Generator, place: pathlib.Path
) -> Outcome:
    run, metrics = place / "run", place / "run" / "metrics.jsonl"
    run.mkdir()
    reached = sorted(int(n) for n in generator.choice(_TRAINED_STEPS - 10, 2, False) + 1)
    lost = 0
    for number in reached:  # killed twice: the second time a run that had gone on
        process = victims.begin(victims.train, run, _TRAINED_STEPS, 0, 1, 0, 100)
        before = victims.num_lines(metrics)  # records after the checkpoint are cut off when it goes on
        try:
            victims.wait_until(
                lambda at=number, was=before: victims.num_lines(metrics) >= at and victims.num_lines(metrics) != was,
                process, run, f"step {number}",
            )  # fmt: skip
            time.sleep(float(generator.random()) * 0.05)
        finally:
            process.kill()
            process.join()
        lost = max(lost, victims.num_lines(metrics) - _goes_on_from(run / "checkpoints"))
    state = victims.training(run, _TRAINED_STEPS)
    same = digest(state) == whole[0], records(run) == whole[1]
    return Outcome(
        passed=all(same) and lost <= 2 * victims.EVERY_STEPS,
        detail=f"killed at {reached}: state {same[0]}, records {same[1]}, {lost} steps lost",
        figures={"steps_lost": float(lost)},
    )


def _restored(directory: pathlib.Path) -> tuple[int, str]:
    """The step that comes back, and what is wrong with it."""
    checkpoints = Checkpoints(directory, _KEEP)
    found = checkpoints.restore(victims.like_state())
    checkpoints.close()
    if found is None:
        return 0, ""
    state, position = found
    step = int(state.step)
    if position != {"position": step} or digest(state) != digest(victims.state_of(step)):
        return step, f"what came back as step {step} is not what was saved"
    return step, ""


def _sealed(directory: pathlib.Path) -> list[int]:
    """Steps with a manifest and a commit, seen without the library."""
    manifests = directory.parent / f"{directory.name}-integrity"
    return sorted(int(path.stem) for path in manifests.glob("[0-9]*.json") if (directory / path.stem).is_dir())


def _goes_on_from(directory: pathlib.Path) -> int:
    """The newest step with a manifest; while none has one yet, the newest that is committed (used, and said so)."""
    committed = [int(path.name) for path in directory.glob("[0-9]*") if path.name.isdecimal()]
    return max(_sealed(directory) or committed, default=0)


def _killed(_: None, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    run = place / "run"
    run.mkdir()
    begun = place / f"run-{victims.BEGUN}"
    process = victims.begin(victims.save_for_ever, run, 1)
    number = int(generator.integers(1, 7))
    try:
        victims.wait_until(lambda: victims.num_lines(begun) >= number, process, run, f"save {number}")
        time.sleep(float(generator.random()) * 0.15)  # any instant will do: this must hold for all of them
    finally:
        process.kill()
        process.join()
    last = victims.num_lines(begun)
    sealed = _sealed(run / "checkpoints")
    step, problem = _restored(run / "checkpoints")
    unverified = not sealed and step == 1  # the first one, killed between its commit and its manifest
    if not problem and step != max(sealed, default=0) and not unverified:
        problem = f"step {step} came back; sealed were {sealed}"
    if not problem and last - step > 2:  # the one in flight, and the one whose manifest was being written
        problem = f"{last - step} saves were lost"
    return Outcome(passed=not problem, detail=problem, figures={"saves_lost": float(last - step)})


_DISK = [
    (kind, policy) for kind in ("full", "lost", "read-only") for policy in ("continue", "stop")
]  # fmt: skip


def _turns(shared: pathlib.Path) -> Iterator[tuple[str, str]]:
    able = victims.ended(victims.begin(victims.try_permissions, shared)) == 0
    return itertools.cycle([item for item in _DISK if able or item[0] == "full"])


def _no_disk(turns: Iterator[tuple[str, str]], generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    kind, policy = next(turns)
    place.chmod(0o755)
    last = 8
    if kind == "full":
        size = int(generator.integers(500, 900))  # a step takes 0.3 MB, three are kept and one is in flight
        process = victims.begin(victims.on_small_disk, place, size, 1, policy, last)
        left = place / "left"
    else:
        number = int(generator.integers(2, 5)) if kind == "lost" else 0
        when = "start" if kind == "read-only" else "later"
        process = victims.begin(victims.without_permission, place, when, 1, policy, last, number)
        left = place / "disk"
        if kind == "lost":
            victims.wait_until(
                lambda: victims.num_lines(place / f"disk-{victims.BEGUN}") >= number, process, place, "a save"
            )
            for path in (left / "checkpoints", left / "checkpoints-integrity"):
                if path.exists():
                    path.chmod(0o555)
            (place / victims.GO_ON).touch()  # it waits for that, however slow this process is
    code = victims.ended(process)
    if kind == "lost":
        for path in (left / "checkpoints", left / "checkpoints-integrity"):
            if path.exists():
                path.chmod(0o755)
    text = victims.said(place)
    begun = victims.num_lines(place / f"disk-{victims.BEGUN}")
    problems = []
    if "Traceback (most" in text:
        problems.append(f"a traceback: {text[-1500:]}")
    if victims.STILL_AT_WORK in text:
        problems.append(text[text.index(victims.STILL_AT_WORK) :][:500])
    told = "was not saved" in text or "could not be saved" in text or "can be kept" in text
    if code != 3 or not told or "stopped:" not in text:
        problems.append(f"exit code {code}, and the failure was not said: {text[-600:]}")
    if policy == "continue" and kind != "read-only" and begun != last:
        problems.append(f"the run stopped at save {begun}, though it was to go on: {text[-600:]}")
    if policy == "stop" and kind == "lost" and begun > number + 2:
        problems.append(f"the run went on to save {begun}, though it was to stop")
    newest = 0
    if (left / "checkpoints").is_dir():
        newest, problem = _restored(left / "checkpoints")
        problems += [problem] if problem else []
    figures = {} if kind == "read-only" else {"steps_kept": float(newest)}
    return Outcome(passed=not problems, detail=f"{kind}, {policy}: {'; '.join(problems)}", figures=figures)


_SIGNALS = [
    (count, number, twice)
    for twice in (False, True)
    for number in (signal.SIGTERM, signal.SIGINT)
    for count in (1, 2)
]  # fmt: skip
_STEPS = 100_000


def _signal_turns(_: pathlib.Path) -> Iterator[tuple[int, int, bool]]:
    return itertools.cycle(_SIGNALS)


def _begin(
    place: pathlib.Path, count: int, heartbeat_seconds: int = 100, steps: int = _STEPS
) -> list[victims.BaseProcess]:
    port = victims.free_port()
    return [
        victims.begin(victims.train, place, steps, index, count, port, heartbeat_seconds, output=f"{index}.txt")
        for index in range(count)
    ]


def _told_to_stop(
    turns: Iterator[tuple[int, int, bool]], generator: np.random.Generator, place: pathlib.Path
) -> Outcome:
    count, number, twice = next(turns)
    detail = f"{count} processes, {signal.Signals(number).name}{', twice' if twice else ''}"
    processes = _begin(place, count)
    metrics, reached = place / "metrics.jsonl", int(generator.integers(7, 20))
    problems = []
    try:
        victims.wait_until(
            lambda: victims.num_lines(metrics) >= reached, processes[0], place, f"step {reached}", output="0.txt"
        )
        whom = processes[int(generator.integers(count))]
        sent = time.monotonic()
        os.kill(whom.pid, number)
        if twice:
            # With several processes a second one counts once all have agreed on the step.
            time.sleep(float(generator.random()) * 0.05)
            os.kill(whom.pid, number)
        codes = [victims.ended(process, 120) for process in processes]
        seconds = time.monotonic() - sent
    finally:
        for process in processes:
            process.kill()
            process.join()
    texts = [victims.said(place, f"{index}.txt") for index in range(count)]
    polite = {128 + number, 128 + signal.SIGTERM} if count > 1 else {128 + number}
    at_once = {-number, -signal.SIGTERM, -signal.SIGKILL}
    allowed = polite | (at_once | {-signal.SIGABRT, 3, 1} if twice else set())
    if not set(codes) <= allowed:
        problems.append(f"exit codes {codes}: {texts[0][-500:]}")
    checkpoints = Checkpoints(place / "checkpoints")
    steps = checkpoints.steps()
    checkpoints.close()
    last = victims.num_lines(metrics)
    if not twice and steps[-1:] != [last]:
        problems.append(f"step {last} was the last, and {steps} are committed")
    if any(text.count("stopped by") != 1 for text in texts) and not twice:
        problems.append(f"not said: {texts}")
    if problem := _whole(place):
        problems.append(problem)
    figures = {} if twice else {f"seconds_to_exit_with_{count}": seconds}
    return Outcome(passed=not problems, detail=f"{detail}: {'; '.join(problems)}", figures=figures)


def _whole(place: pathlib.Path) -> str:
    """Every committed step is what its manifest says."""
    for step in _sealed(place / "checkpoints"):
        integrity = read_integrity(place / "checkpoints-integrity" / f"{step}.json")
        if problems := damages(place / "checkpoints" / str(step), integrity):
            return f"step {step}: {problems}"
    return ""


def _short_run(shared: pathlib.Path) -> pathlib.Path:
    victims.training(shared / "run", 12)
    return shared / "run"


def _two_fall_back(run: pathlib.Path, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    shutil.copytree(run, place, dirs_exist_ok=True)
    files = [path for path in sorted((place / "checkpoints" / "12").rglob("*")) if path.is_file()]
    path = files[int(generator.integers(len(files)))]
    flip(path, generator)
    processes = _begin(place, 2, steps=20)
    codes = [victims.ended(process) for process in processes]
    text = victims.said(place, "0.txt")
    problems = [] if codes == [0, 0] else [f"exit codes {codes}: {text[-1500:]}"]
    if not (place / "checkpoints-damaged" / "12").is_dir() or path.name not in text:
        problems.append("the damaged step was not set aside, or its file not named")
    if [row["step"] for row in records(place)] != list(range(1, 21)) or 20 not in _sealed(place / "checkpoints"):
        problems.append("the run did not go on to its end")
    if problem := _whole(place):
        problems.append(problem)
    return Outcome(passed=not problems, detail=f"{path.name}: {'; '.join(problems)}")


_HEARTBEAT_SECONDS = 10


def _peer_died(_: None, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    processes = _begin(place, 2, _HEARTBEAT_SECONDS)
    metrics, reached = place / "metrics.jsonl", int(generator.integers(6, 20))
    try:
        victims.wait_until(
            lambda: victims.num_lines(metrics) >= reached, processes[0], place, f"step {reached}", output="0.txt"
        )
        dead = int(generator.integers(2))
        processes[dead].kill()
        killed = time.monotonic()
        code = victims.ended(processes[1 - dead], _HEARTBEAT_SECONDS + 60)
        seconds = time.monotonic() - killed
    finally:
        for process in processes:
            process.kill()
            process.join()
    text = victims.said(place, f"{1 - dead}.txt")
    problems = []
    if code in (0, None):
        problems.append(f"exit code {code} (None: it hung)")
    if seconds > _HEARTBEAT_SECONDS + 10:
        problems.append(f"{seconds:.0f} s")
    # Ours where an operation fails first; jax's own words, with the number of the process, where it ends this one.
    if "stopped: process" not in text and "another task died" not in text:
        problems.append("not said")
    if problem := _whole(place):
        problems.append(problem)
    return Outcome(
        passed=not problems,
        detail=f"process {dead} killed: {'; '.join(problems)}: {text[-1500:]}",
        figures={"seconds_until_the_other_ended": seconds},
    )


FAULTS = (
    Fault(
        name="T4",
        title="SIGKILL at a random instant of a process that saves step after step (0.3 MB each)",
        criterion="the newest step with a manifest comes back bit for bit; at most the save in flight and the one "
        "whose manifest was being written are lost",
        trial=_killed,
        num_trials=200,
        num_fast=2,
        baseline="measured (Orbax 0.12): 8 of 8 restored",
    ),
    Fault(
        name="T4-run",
        title="SIGKILL at two random instants of a training with a checkpoint every five steps, which then goes on",
        criterion="SHA-256 of the final state and all records equal those of the run that was not killed; at most two "
        "intervals are lost (a save may be in flight)",
        trial=_training_killed,
        prepare=_reference,
        num_trials=100,
        num_fast=1,
    ),
    Fault(
        name="T5-two",
        title="one bit flipped in the newest checkpoint of a run that two processes go on with",
        criterion="the first process decides for both: the file is named, the step set aside, the one before it "
        "restored, and both go on to the end",
        trial=_two_fall_back,
        prepare=_short_run,
        num_trials=40,
        num_fast=1,
    ),
    Fault(
        name="T7",
        title="a full disk (tmpfs of 0.5 to 0.9 MB, 0.3 MB a step), permission lost in the middle, a directory that is "
        "read-only from the start; on_failure continue and stop",
        criterion="it goes on or stops as the policy says, exit code 3 with a message, no traceback of any thread; "
        "no file changes afterwards (full disk: looked at for 0.1 s); no step is named that is not whole; the newest "
        "whole one comes back bit for bit",
        trial=_no_disk,
        prepare=_turns,
        num_trials=300,
        num_fast=6,
        baseline="measured (Orbax 0.12, 6 MB): save() returned True and latest_step() named the step that failed",
    ),
    Fault(
        name="T8",
        title="SIGTERM or SIGINT to a training of one or two processes at a random moment; once, or twice within 50 ms",
        criterion="once: the step just made is committed in all processes, exit code 128 + signal; twice: it ends "
        "at once, by the signal; always every committed step is whole",
        trial=_told_to_stop,
        prepare=_signal_turns,
        num_trials=160,
        num_fast=3,
        baseline="published: Tunix handles no signals in its trainers; Orbax alone saves nothing in a single process",
    ),
    Fault(
        name="T9",
        title="SIGKILL to one of two training processes",
        criterion=f"the other one ends within the heartbeat ({_HEARTBEAT_SECONDS} s) and 10 s, and says that a process "
        "is lost; every committed step is whole",
        trial=_peer_died,
        num_trials=60,
        num_fast=1,
    ),
)
