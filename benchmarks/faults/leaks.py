"""What must not get out: the key of an endpoint, wherever it is repeated; anything at all when we are imported."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import logging
import os
import pathlib
import string
import subprocess
import sys
import traceback
import unittest.mock
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.config import describe, show
from jaxrefine.judging.files import judge_file
from jaxrefine.judging.pairwise import PairwiseJudge
from jaxrefine.judging.verdicts import GenerativeAsker
from jaxrefine.sampling import endpoint_dispatch
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.redaction import HIDDEN
from jaxrefine.sampling.responder import Message, Request
from jaxrefine.systems.sampling_endpoint import EndpointSampling
from tests.sampling.fault_server import FaultServer

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VARIABLE = "CANARY_KEY"
Draw = np.random.Generator


def _spellings(key: str) -> set[str]:
    """How a key may come to stand in a text: any of these is a leak, and so is half of it."""
    half = key[: len(key) // 2]
    spelled = {key, json.dumps(key)[1:-1], repr(key)[1:-1], urllib.parse.quote(key, safe="")}
    return {half, *spelled, base64.b64encode(key.encode()).decode(), key.encode().hex()}


@contextlib.contextmanager
def _watched(key: str) -> Iterator[list[str]]:
    """The key in the environment; every log record, at every level, and all that is printed."""
    shown: list[str] = []
    root, level, output = logging.getLogger(), logging.getLogger().level, io.StringIO()
    handler = logging.StreamHandler(output)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with (
            unittest.mock.patch.dict(os.environ, {VARIABLE: key}),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            yield shown
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        shown.append(output.getvalue())


def _trace(error: BaseException) -> str:
    """All that a traceback can show: the chain of causes, and every local variable."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def _crashed(config: EndpointConfig, workdir: pathlib.Path) -> list[str]:
    """A request that fails in our own code: reprs of all that is there before, and the traceback."""
    with Endpoint(config, workdir, quiet=True) as endpoint:
        seen = [repr(endpoint), repr(vars(endpoint)), repr(vars(endpoint._dispatcher)), repr(endpoint.spending)]
        try:
            endpoint.respond([Request(messages=(Message("user", "f"),), max_tokens=8)])
        except ZeroDivisionError as error:
            return [*seen, _trace(error)]
    raise AssertionError("it did not crash")


def _refused(job: EndpointSampling, workdir: pathlib.Path) -> list[str]:
    """A job whose key is refused."""
    try:
        run_stages(job.stages(), workdir, job, Console(file=sys.stderr))
    except ValueError as error:
        return [str(error), _trace(error)]
    raise AssertionError("it was not refused")


def _key(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    """A server that repeats the key in replies and errors, under a run that samples, judges, fails and crashes."""
    letters = string.ascii_letters + string.digits + "-_+/=\"'\\%&<{$"
    key = "sk-" + "".join(str(draw.choice(list(letters))) for _ in range(int(draw.integers(24, 60))))
    path = directory / "run" / "prompts.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps({"id": name, "prompt": name}) + "\n" for name in "abcd"))
    faults = {"a": ["echo-key", "echo-key"], "b": ["500", "echo-key"], "c": ["400", "400"], "e": ["401"], "f": [""]}
    with _watched(key) as shown, FaultServer(faults) as server:
        config = EndpointConfig(
            base_url=server.url,
            model="m",
            api_key_env=VARIABLE,
            first_backoff_seconds=0.0,
            max_attempts=2,
            concurrency=1,
        )
        job = EndpointSampling(
            endpoint=config,
            prompts=str(path),
            keep=str(directory / "run" / "keep"),
            num_candidates=2,
            missing_allowed=0.5,
        )
        run_stages(job.stages(), directory / "run" / "work", job, Console(file=sys.stderr))
        shown += [show(job), json.dumps(describe(job)), repr(job)]  # what a tracker is given
        candidates = directory / "run" / "work" / "02-samples" / "candidates.jsonl"
        with Endpoint(config, directory / "run" / "judge") as endpoint:
            judge = PairwiseJudge(GenerativeAsker(endpoint))
            results, summary = judge_file(judge, candidates, directory / "run" / "judged.jsonl")
        shown += [repr(results), str(summary)]
        (directory / "run" / "one.jsonl").write_text('{"id": "e", "prompt": "e"}\n')
        other = dataclasses.replace(
            job, prompts=str(directory / "run" / "one.jsonl"), keep=str(directory / "run" / "two")
        )
        shown += _refused(other, directory / "run" / "refused")
        with unittest.mock.patch.object(endpoint_dispatch, "parse_answer", side_effect=ZeroDivisionError):
            shown += _crashed(config, directory / "run" / "three")
        sent = server.keys == {key}
    files = [file for file in directory.rglob("*") if file.is_file()]
    texts = dict(enumerate(shown)) | {file.name: file.read_text() for file in files}
    leaks = [f"{name}: {spelled}" for name, text in texts.items() for spelled in _spellings(key) if spelled in text]
    hidden = sum(HIDDEN in text for text in texts.values())
    return Outcome(
        passed=sent and not leaks and hidden > 0,
        detail=f"sent: {sent}; in {leaks[:3]}; taken out of {hidden} texts",
        figures={"texts_searched": float(len(texts)), "places_taken_out": float(hidden)},
    )


_IMPORTER = """
import json, os, sys
names = json.loads(sys.argv[1])
seen = []
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
          "shutil.")
REACHES = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "subprocess.", "os.system", "os.exec",
           "os.posix_spawn", "os.fork", "webbrowser.")

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        if writing and path != os.devnull:
            seen.append(f"open {path!r}")
    elif event.startswith(WRITES + REACHES):
        seen.append(f"{event} {arguments!r:.200}")

sys.addaudithook(watch)
import importlib
for name in names:
    importlib.import_module(name)
sys.stdout.write(json.dumps(seen))
"""


def _modules(_: pathlib.Path) -> list[str]:
    files = (ROOT / "jaxrefine").rglob("*.py")
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return sorted(name for name in names if not name.endswith("__main__"))  # that one runs the command line


def _imports(names: list[str], draw: Draw, directory: pathlib.Path) -> Outcome:
    home, temporary = directory / "home", directory / "tmp"
    for place in (home, temporary):
        place.mkdir()
    order = [names[index] for index in draw.permutation(len(names))]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(ROOT),
    }
    finished = subprocess.run(
        [sys.executable, "-B", "-c", _IMPORTER, json.dumps(order)],
        cwd=home,
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    left = sorted(str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file())
    if finished.returncode:
        return Outcome(passed=False, detail=finished.stderr[-600:])
    seen = json.loads(finished.stdout)
    return Outcome(
        passed=not seen and not left,
        detail=f"did {seen[:5]}; left {left[:5]}",
        figures={"modules": float(len(order))},
    )


FAULTS = (
    Fault(
        name="S4",
        title="a random key with quotes and escapes, repeated by the server in replies and errors: sampled, judged, "
        "refused (401), crashed",
        criterion="0 occurrences, of half of it either, in files, logs at every level, output, configs as a tracker "
        "gets them, reprs, tracebacks with all local variables",
        trial=_key,
        num_trials=100,
        num_fast=1,
    ),
    Fault(
        name="S7",
        title="every module is imported, in random order, in a fresh process",
        criterion="nothing is written (system calls that Python audits, the home and the temporary directory), no "
        "socket, no process",
        trial=_imports,
        prepare=_modules,
        num_trials=10,
        num_fast=1,
    ),
)
