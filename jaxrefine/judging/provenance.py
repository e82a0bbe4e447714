"""Who labelled what: judges map candidates to labelled ones that say by whom; what gets none is kept and counted."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from jaxrefine.config import digest, unknown_name
from jaxrefine.data.examples import Candidates

JUDGEMENT = "judgement"
"""The field of an example's ``meta`` that holds where its labels come from; it survives a round trip through JSONL."""

Reason = Literal["refused", "unparsable", "unanswered"]
REASONS: tuple[Reason, ...] = ("refused", "unparsable", "unanswered")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Which judge made a label, and all that its verdict depends on.

    Raises:
        ValueError: an empty judge, version or model; settings that JSON does not hold.

    >>> by = Provenance(judge="contextual", version="1", model="teacher", settings={"axes": ("clarity",)})
    >>> Provenance.from_record(by.record()) == by
    True
    """

    judge: str
    """Its name, as ``contextual``."""
    version: str
    """Of its procedure: another one may label the same text otherwise."""
    model: str
    """Name of the model that was asked or that scored."""
    model_version: str = ""
    """What tells that model's weights from others of its name: a digest, or a server's own version."""
    prompt: str | None = None
    """Digest of the template and all else that is said to the model; None where nothing is said."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Whatever else matters, as JSON holds it (tuples become lists)."""

    def __post_init__(self) -> None:
        for name in ("judge", "version", "model"):
            if not isinstance(value := getattr(self, name), str) or not value:
                raise ValueError(f"provenance.{name} is a non-empty string, got {value!r}")
        try:
            settings = json.loads(json.dumps(dict(self.settings), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"provenance.settings of judge {self.judge!r} do not fit JSON: {error}") from error
        object.__setattr__(self, "settings", settings)

    def record(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_record(cls, record: object) -> Provenance:
        """What ``record`` gave.

        Raises:
            ValueError: no object, or a field that is missing or unknown; names it.
        """
        if not isinstance(record, Mapping):
            raise ValueError(f"a provenance is an object, got {type(record).__name__}")
        names = [field.name for field in dataclasses.fields(cls)]
        for given in record:
            if given not in names:
                raise ValueError(unknown_name(given, names, "field of a provenance"))
        if missing := [name for name in names if name not in record]:
            raise ValueError(f"a provenance without {', '.join(missing)}")
        return cls(**record)

    def digest(self) -> str:
        """Equal for equal provenances, in every process: 32 hexadecimal digits."""
        return digest(self.record())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unjudged:
    """An example that got no labels, and why; it is counted and kept, never labelled by default.

    ``refused``: it cannot be judged at all (nothing to compare, too long). ``unparsable``: the judge answered, and not
    in the form that it was asked for. ``unanswered``: the judge did not answer; another run may fare better.
    """

    id: str
    kind: Reason
    reason: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the judge noted all the same, as JSON holds it."""


Result = Candidates | Unjudged
Done = Callable[[int, Result], None]


@runtime_checkable
class Judge(Protocol):
    """A function from candidates to labelled candidates."""

    @property
    def provenance(self) -> Provenance:
        """What goes into every example that it labels."""

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example.

        Args:
            examples: whatever their labels are, they are not read and are replaced.
            done: called with the index and the result of each example as soon as it is there, in any order.
            known: indices of examples that need no judgement; what is left gets the labels that it would have got.

        Returns:
            One result an example, in order; None for those that are known.
        """


def labelled(
    example: Candidates, labels: Iterable[float], provenance: Provenance, details: Mapping[str, Any] | None = None
) -> Candidates:
    """The example with these labels, which say where they come from.

    Args:
        example: of any labels; those, and what an earlier judge left, are replaced.
        labels: one a response; higher is better.
        provenance: of the labels.
        details: of this one judgement, as JSON holds them: single scores, the order of presentation.

    >>> by = Provenance(judge="contextual", version="1", model="teacher")
    >>> labelled(Candidates("1", "Hello?", ("Hi!",), (0.0,)), [4.0], by).meta["judgement"]["judge"]
    'contextual'
    """
    meta = {**example.meta, JUDGEMENT: {**provenance.record(), "details": dict(details or {})}}
    return dataclasses.replace(example, labels=tuple(map(float, labels)), meta=meta)


def provenance_of(example: Candidates) -> Provenance | None:
    """Where an example's labels come from; None where it does not say.

    Raises:
        ValueError: it says it in a form that ``labelled`` does not write.
    """
    found = example.meta.get(JUDGEMENT)
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise ValueError(f"example {example.id!r}: meta.{JUDGEMENT} is an object, got {type(found).__name__}")
    try:
        return Provenance.from_record({name: value for name, value in found.items() if name != "details"})
    except ValueError as error:
        raise ValueError(f"example {example.id!r}: meta.{JUDGEMENT}: {error}") from error


def details_of(example: Candidates) -> Mapping[str, Any]:
    """What a judge noted of this one example; empty where no judge labelled it."""
    found = example.meta.get(JUDGEMENT)
    return found.get("details", {}) if isinstance(found, Mapping) else {}


def sources(examples: Iterable[Candidates]) -> list[dict[str, Any]]:
    """What a set of examples was labelled by, for the manifest of a training run: the most frequent first.

    Returns:
        The records of the provenances, each with its ``digest`` and its number of ``examples``; labels of unknown
        origin have ``judge`` None.

    >>> sources([Candidates("1", "Hello?", ("Hi!",), (0.0,))])
    [{'judge': None, 'examples': 1}]
    """
    found: dict[str | None, Provenance | None] = {}
    counts: Counter[str | None] = Counter()
    for example in examples:
        provenance = provenance_of(example)
        key = None if provenance is None else provenance.digest()
        found.setdefault(key, provenance)
        counts[key] += 1
    listed: list[dict[str, Any]] = []
    for key, number in counts.most_common():
        provenance = found[key]
        record = {"judge": None} if provenance is None else {**provenance.record(), "digest": key}
        listed.append({**record, "examples": number})
    return listed


def distinct(responses: Sequence[str]) -> tuple[list[int], list[int]]:
    """Each different response once: responses that differ by outer white space alone are one.

    Returns:
        The index of the first of each kind, and for every response the place of its kind among those.

    >>> distinct(["yes", "no", "yes "])
    ([0, 1], [0, 1, 0])
    """
    kinds: dict[str, int] = {}
    firsts: list[int] = []
    places = []
    for index, response in enumerate(responses):
        text = response.strip()
        if text not in kinds:
            kinds[text] = len(firsts)
            firsts.append(index)
        places.append(kinds[text])
    return firsts, places


def storable(text: str) -> str:
    r"""The text as UTF-8 holds it: half of a surrogate pair, which a reply's JSON may spell, becomes a question mark.

    >>> storable("fine \ud83d")
    'fine ?'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
