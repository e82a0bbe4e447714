"""What is known of PandaLM's human test set as a whole: whether a file is all of it, and what its verdicts come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jaxrefine.data.readers_pandalm import Annotated
from jaxrefine.evaluation.agreement import majority
from jaxrefine.evaluation.judge_report import JudgeReport

ROWS = 999
MAJORITIES = {"first": 422, "second": 472, "tie": 105}
RECOUNTED = {"pandalm-7b": ("wrong", 0.6677, 0.5743), "gpt-3.5-turbo": ("tie", 0.7107, 0.5755)}
"""Of the released verdicts, by the name of their file: what unreadable ones count as, accuracy, macro F1.

Source: PandaLM, arXiv:2306.05087, the files of its repository, counted again; the paper's table has other figures.
"""


def notes_on_test_set(pairs: Sequence[Annotated], report: JudgeReport) -> list[str]:
    """Which rows of the test set a file has; of the whole set, whether the counts are those that are known.

    Args:
        pairs: as ``read_pandalm_test_set`` gives them; their ids are the rows' numbers.
        report: on these pairs, released judges by the names of their files.

    Returns:
        Sentences for a report.
    """
    numbers = sorted(int(pair.id) for pair in pairs)
    first, last = numbers[0], numbers[-1]
    if len(numbers) < ROWS:
        gaps = "" if last - first + 1 == len(numbers) else ", not all between"
        return [
            f"These are {len(numbers)} of the test set's {ROWS} rows (idx {first} to {last}{gaps}): figures of the "
            "whole set are not to be expected of them."
        ]
    found = Counter(str(majority(pair.said)) for pair in pairs)
    counted = ", ".join(f"{found[verdict]} {verdict}" for verdict in MAJORITIES)
    notes = [f"These are all {ROWS} rows. Majorities: {counted}: {_as_known(dict(found) == MAJORITIES)}."]
    for judge, (unread, accuracy, f1) in RECOUNTED.items():
        rows = report.lenient if unread == "tie" and judge in report.lenient else report.judges
        if judge in rows:
            measured = round(rows[judge].accuracy, 4), round(rows[judge].macro.f1, 4)
            notes.append(
                f"{judge}: accuracy {measured[0]:.4f} and F1 {measured[1]:.4f}"
                + (", unreadable as ties" if unread == "tie" else "")
                + f": {_as_known(measured == (accuracy, f1))}"
                + ("." if measured == (accuracy, f1) else f" (known: {accuracy:.4f} and {f1:.4f}).")
            )
    return notes


def _as_known(same: bool) -> str:
    return "as is known of it" if same else "NOT what is known of it, so the file or the counting differs"
