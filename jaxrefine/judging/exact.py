"""The judge that needs no model: the final answer against the known one, and the length against a known solution's."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from jaxrefine.data.examples import ORIGINAL, Candidates
from jaxrefine.judging.answers import is_right
from jaxrefine.judging.provenance import Done, Provenance, Result, Unjudged, labelled

VERSION = "1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactConfig:
    """How responses are scored: two axes from 0 to ``top``, added up.

    accuracy: ``top`` where a finished response marks the known answer, else 0
    length:   ``top`` · min(a, b) / max(a, b), rounded to a whole number as a judge's points are, times
              ``length_weight``, for a response of a words beside an original of b
    """

    top: float = 5.0
    length_weight: float = 1.0
    """0: right and wrong alone, and nothing is asked of the data's own response."""

    def __post_init__(self) -> None:
        for name in ("top", "length_weight"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"ExactConfig.{name} = {value} must not be negative")


class ExactJudge:
    """Labels responses by their final answer and, below it, by how close their length is to the original's.

    Args:
        config: of the axes.

    Examples need the known ``answer`` and, where the length counts, ``meta["original"]``.

    >>> meta = {"original": "2 and 3 make 5. #### 5"}
    >>> example = Candidates("1", "2+3?", ("2 and 3 make 5. #### 5", "#### 5", "#### 6"), (0.0,) * 3, "5", meta=meta)
    >>> ExactJudge()([example])[0].labels
    (10.0, 6.0, 1.0)
    """

    def __init__(self, config: ExactConfig | None = None) -> None:
        self.config = ExactConfig() if config is None else config
        self.provenance = Provenance(
            judge="exact", version=VERSION, model="none", settings=dataclasses.asdict(self.config)
        )

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example."""
        results: list[Result | None] = [None] * len(examples)
        for index, example in enumerate(examples):
            if index in known:
                continue
            result = results[index] = self._one(example)
            if done is not None:
                done(index, result)
        return results

    def _one(self, example: Candidates) -> Result:
        if example.answer is None:
            return Unjudged(id=example.id, kind="refused", reason="it has no known answer")
        original = example.meta.get(ORIGINAL)
        if self.config.length_weight and not (isinstance(original, str) and original.split()):
            return Unjudged(id=example.id, kind="refused", reason=f'meta["{ORIGINAL}"] holds no text')
        accuracy = [
            self.config.top * float(done and is_right(text, example.answer) == "right")
            for text, done in zip(example.responses, example.finished, strict=True)
        ]
        length = [self._length(text, str(original)) for text in example.responses]
        details = {"accuracy": accuracy, "length": length}
        return labelled(example, map(sum, zip(accuracy, length, strict=True)), self.provenance, details)

    def _length(self, text: str, original: str) -> float:
        if not self.config.length_weight:
            return 0.0
        own, wanted = len(text.split()), len(original.split())
        return self.config.length_weight * round(self.config.top * min(own, wanted) / max(own, wanted))
