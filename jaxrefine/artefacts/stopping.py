"""What ends a run without a mistake in the program: told in a line, with what to do, and without a traceback."""

from __future__ import annotations


class StoppedError(RuntimeError):
    """The run cannot go on here: a full disk, a damaged checkpoint, weights that diverge, a process that died.

    The command line prints the message alone and exits with ``exit_code``; what was committed is kept.
    """

    exit_code = 3
