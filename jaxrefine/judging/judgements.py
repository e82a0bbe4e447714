"""What the contextual judge replies: points on three axes, a ranking by their sums; read strictly, or sent back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxrefine.artefacts.atomic import parse_json

MAX_POINTS = 5

Kind = Literal["open", "closed"]
AXES: dict[str, tuple[str, str, str]] = {
    "open": ("relevance", "detail", "accuracy"),
    "closed": ("accuracy", "detail", "clarity"),
}
"""What is scored, by the kind of task."""

FORMAT = """\
Reply with one JSON object and with nothing before or after it. Its fields are:
"kind": "open" or "closed"
"reference": your own answer, a string
"scores": an object with one field for each of {names}. Each holds an object with your points, numbers from 0 to 5: \
"relevance", "detail" and "accuracy" if the kind is open; "accuracy", "detail" and "clarity" if it is closed
"ranking": a list of lists of those names, best first; responses with equal sums stand in one list together"""
"""What a reply must be, as the judge is told; ``{names}`` are those of the responses shown."""

_FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL)


class MalformedReplyError(ValueError):
    """A reply in another form than was asked for; says what is wrong in words that the judge can mend it by."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A reply, read."""

    kind: Kind
    reference: str
    scores: Mapping[str, tuple[float, float, float]]
    """Points by name, in the order of ``AXES[kind]``."""

    def total(self, name: str) -> float:
        """The sum of a response's points, 0 to 15."""
        return round(sum(self.scores[name]), 6)


def parse_judgement(text: str, names: Sequence[str], *, check_ranking: bool = True) -> Judgement:
    """Reads a reply strictly.

    Args:
        text: a JSON object, alone or in one code fence.
        names: of the responses shown.
        check_ranking: whether a ranking that the sums contradict makes the reply malformed; without it a ranking may
            be there or not.

    Raises:
        MalformedReplyError: not JSON, a field or a response missing, unknown or repeated, points out of range, a
            ranking that is not that of the sums.

    >>> said = '{"kind": "closed", "reference": "5", "scores": {"A": {"accuracy": 5, "detail": 3, "clarity": 4.5}}, '
    >>> parse_judgement(said + '"ranking": [["A"]]}', ["A"]).total("A")
    12.5
    """
    fenced = _FENCED.match(text.strip())
    try:
        found = parse_json(fenced[1] if fenced else text.strip(), where="the reply")
    except ValueError as error:
        raise MalformedReplyError(str(error)[:300]) from error
    if not isinstance(found, dict):
        raise MalformedReplyError(f"the reply is a {type(found).__name__}, and a JSON object is wanted")
    wanted = ["kind", "reference", "scores", *(["ranking"] if check_ranking or "ranking" in found else [])]
    _check_fields(found, wanted, "the object")
    kind, reference = found["kind"], found["reference"]
    if not isinstance(kind, str) or kind not in AXES:
        raise MalformedReplyError(f'the kind is "open" or "closed", not {_shown(kind)}')
    if not isinstance(reference, str):
        raise MalformedReplyError("the reference is not a string")
    if not isinstance(found["scores"], dict):
        raise MalformedReplyError("scores is not an object")
    _check_fields(found["scores"], names, "scores")
    scores: dict[str, tuple[float, float, float]] = {}
    for name in names:
        points, axes = found["scores"][name], AXES[kind]
        if not isinstance(points, dict):
            raise MalformedReplyError(f"scores.{name} is not an object")
        _check_fields(points, axes, f"scores.{name} (the kind is {kind})")
        first, second, third = (_points(points[axis], f"scores.{name}.{axis}") for axis in axes)
        scores[name] = (first, second, third)
    judgement = Judgement("open" if kind == "open" else "closed", reference, scores)
    if check_ranking:
        _check_ranking(found["ranking"], judgement)
    return judgement


def _check_fields(found: Mapping[str, Any], wanted: Sequence[str], what: str) -> None:
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(repr(name)[:40] for name in unknown)} that nobody asked for"] if unknown else []
        raise MalformedReplyError(f"{what} {' and '.join(parts)}")


def _points(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_POINTS:
        raise MalformedReplyError(f"{where} is {_shown(value)}, and a number from 0 to {MAX_POINTS} is wanted")
    return float(value)


def _shown(value: Any) -> str:
    """A text or a number, cut short; of anything else the kind alone, for it may be nested without end."""
    return repr(value)[:40] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _check_ranking(ranking: Any, judgement: Judgement) -> None:
    if not isinstance(ranking, list) or not all(
        isinstance(tied, list) and all(isinstance(name, str) for name in tied) for tied in ranking
    ):
        raise MalformedReplyError("the ranking is not a list of lists of names")
    named = [name for tied in ranking for name in tied]
    if sorted(named) != sorted(judgement.scores):
        raise MalformedReplyError(f"the ranking does not name each of {', '.join(judgement.scores)} exactly once")
    totals = {name: judgement.total(name) for name in judgement.scores}
    by_sum: dict[float, list[str]] = {}
    for name in judgement.scores:
        by_sum.setdefault(totals[name], []).append(name)
    expected = [sorted(by_sum[total]) for total in sorted(by_sum, reverse=True)]
    if [sorted(tied) for tied in ranking if tied] != expected:
        sums = ", ".join(f"{name} {total:g}" for name, total in totals.items())
        raise MalformedReplyError(f"the ranking is not that of the sums, which are {sums}")


def names_of(count: int) -> list[str]:
    """A, B, C …; R1, R2 … where the letters do not reach."""
    return [chr(ord("A") + i) for i in range(count)] if count <= 26 else [f"R{i + 1}" for i in range(count)]
