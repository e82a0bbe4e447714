"""Evaluators: a model that says of a whole solution whether it is correct, by the log-odds of the two words."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from jaxrefine.data.examples import Candidates
from jaxrefine.data.templates import TEMPLATES, VERDICT_WORDS
from jaxrefine.judging.likelihood import dtype_of, label_by
from jaxrefine.judging.local import LocalModel, PackedScorer, Rows
from jaxrefine.judging.provenance import Done, Provenance, Result
from jaxrefine.scoring.scorers import VerdictLogOdds

VERSION = "1"


class VerdictJudge:
    """Labels responses by log S, the log-probability of "correct" where "correct" and "incorrect" are all there is.

    log S = log p(correct) − log(p(correct) + p(incorrect)), each word whole, after the response and a sentence that
    ends right before it. exp(log S) can be added up (``selection.probabilities``). Whose responses they are makes no
    difference: any evaluator scores any generator's.

    Args:
        local: the evaluator; one that was not trained for it says little.
        suffix: the sentence between a response and its verdict.
        words: for right and for wrong, with their leading space.
        rows: limits and sizes.

    Source: Liu et al. 2023 (arXiv 2310.10047), Eq. 5–7.
    """

    def __init__(
        self,
        local: LocalModel,
        *,
        suffix: str = TEMPLATES["verdict"].text,
        words: tuple[str, str] = VERDICT_WORDS,
        rows: Rows | None = None,
    ) -> None:
        rows = Rows() if rows is None else rows
        self.scorer = PackedScorer(
            local, VerdictLogOdds(), rows, score_responses=False, suffix=suffix, verdicts=words
        )  # fmt: skip
        self.provenance = Provenance(
            judge="verdict",
            version=VERSION,
            model=local.name,
            model_version=local.weights,
            settings={"suffix": suffix, "words": list(words), "dtype": dtype_of(local), **rows.record()},
        )

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example."""
        return label_by(self.scorer, self.provenance, examples, done=done, known=known)
