r"""The program that a grading pool runs: compares two answers with math-verify, under limits, and says what it found.

It is run as a file, by itself: it imports nothing of this package, so that neither jax nor the caller's main module is
imported again. It reads one JSON line a pair on its input and writes one a verdict on what was its standard output.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
from typing import Any, BinaryIO

REFUSED_EXIT = 77
"""Exit status where the text under comparison made the interpreter reach for a process, a socket or a file to write."""

_REFUSED = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "os.remove",
    "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.link", "os.symlink", "os.truncate", "os.putenv", "os.kill",
    "subprocess.Popen", "pty.spawn", "shutil.", "socket.", "urllib.", "http.", "ftplib.", "smtplib.", "ctypes.",
    "webbrowser.", "signal.pthread_kill", "tempfile.",
)  # fmt: skip


def guard(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: the process ends at once where an answer makes it touch anything outside itself."""
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writing = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        writing |= isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        if not writing:
            return
    elif not event.startswith(_REFUSED):
        return
    os._exit(REFUSED_EXIT)


def limit_memory(size: int) -> None:
    """Caps the address space, and allows neither core dumps nor written files."""
    for kind, value in ((resource.RLIMIT_AS, size), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def limit_time(seconds: float) -> None:
    """The kernel ends the process after so many further seconds of CPU, whoever else has gone away."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds) + 1, resource.RLIM_INFINITY))


def verdict(a: str, b: str) -> str:
    """Equal where math-verify says so in either order; different where it has read both and does not."""
    import math_verify
    import sympy

    config = [math_verify.LatexExtractionConfig(boxed_match_priority=-1)]
    read = []
    for text in (a, b):
        found = math_verify.parse(f"${text}$", config, parsing_timeout=None)
        read.append([value for value in found if isinstance(value, sympy.Basic | sympy.MatrixBase)])
    if not all(read):
        return "undecided"
    for gold, target in (read, read[::-1]):
        if math_verify.verify(gold, target, timeout_seconds=None, raise_on_error=True):
            return "equal"
    return "different"


def answer(request: dict[str, Any]) -> dict[str, str]:
    """One reply: a verdict, or why there is none."""
    try:
        return {"verdict": verdict(request["a"], request["b"])}
    except MemoryError:
        return {"verdict": "undecided", "why": "memory"}
    except Exception as error:
        # Whatever a symbolic library raises on text that it cannot handle is an outcome: the pair is undecided.
        return {"verdict": "undecided", "why": type(error).__name__}


def main() -> None:
    """Takes the limits, imports, says that it is ready, and answers until its input ends."""
    memory_bytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    replies: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    limit_memory(memory_bytes)

    def reply(record: dict[str, str]) -> None:
        replies.write(json.dumps(record).encode() + b"\n")

    try:
        import math_verify

        logging.disable(logging.CRITICAL)
        math_verify.parse("$x^2 = 1$", parsing_timeout=None)
    except ImportError as error:
        reply({"error": str(error)})
        return
    reply({"ready": math_verify.__name__})
    sys.addaudithook(guard)
    for line in sys.stdin.buffer:
        limit_time(seconds)
        reply(answer(json.loads(line)))


if __name__ == "__main__":
    main()
