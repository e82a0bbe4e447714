"""Two texts are compared once, whichever way round and however often they come again, and after a restart."""

from __future__ import annotations

import pytest

from jaxrefine.artefacts.journal import Journal
from jaxrefine.judging.kept import KeptComparisons, KeptReplies, turned
from jaxrefine.judging.pairwise import Compared, Pair, PairwiseJudge


class Longer:
    """Prefers the longer text, and what is shown first where they are equally long."""

    model, model_version, prompt_digest, settings = "longer", "1", "p", {}

    def __init__(self) -> None:
        self.asked = []

    def ask(self, questions, done):
        for index, (_, first, second) in enumerate(questions):
            self.asked.append((first, second))
            done(index, "first" if len(first) >= len(second) else "second")


def pair(first: str, second: str, task: str = "Go.") -> Pair:
    return Pair("any", task, first, second)


def test_nothing_is_asked_again(tmp_path):
    asker = Longer()
    with Journal(tmp_path / "said.jsonl") as journal:
        judge = KeptComparisons(PairwiseJudge(asker), journal)
        found = judge.compare([pair("long", "b"), pair("b", "long"), pair("b", "long", "Stop."), pair("b", "b")])
        assert [one.outcome for one in found] == ["first", "second", "second", "tie"]
        assert judge.questions == len(asker.asked) == 4
        assert judge.compare([pair("b", "long"), pair("c", "long")])[0].outcome == "second"
        assert judge.questions == len(asker.asked) == 6
    with Journal(tmp_path / "said.jsonl") as journal:
        again = KeptComparisons(PairwiseJudge(asker), journal)
        assert again.compare([pair("long", "c")], description="again")[0].outcome == "first"
    assert len(asker.asked) == 6


def test_what_was_written_of_a_pair_is_kept_by_its_order(tmp_path):
    for _ in range(2):  # again after a restart, and nothing a second time
        with Journal(tmp_path / "texts.jsonl") as journal:
            replies = KeptReplies(journal)
            replies(("Go.", "a", "b"), "1, for a is first")
            replies(("Go.", "b", "a"), "2")
            assert replies.of(pair("a", "b")) == "1, for a is first"
            assert (replies.of(pair("b", "a")), replies.of(pair("a", "b", "Stop."))) == ("2", "")
    assert len((tmp_path / "texts.jsonl").read_text().splitlines()) == 2


def test_a_match_counts_questions_and_what_the_order_changes(tmp_path):
    with Journal(tmp_path / "said.jsonl") as journal:
        judge = KeptComparisons(PairwiseJudge(Longer()), journal)
        pairs = [pair("long", "b"), pair("a", "b"), pair("b", "long", "Stop."), pair("x", "x")]
        match = judge.match("one", "other", pairs)
    assert match.outcomes == ("first", "tie", "second", "tie")
    assert (match.wins, match.losses, match.ties, match.conflicts, match.questions) == (1, 1, 2, 1, 6)
    assert match.winner == "one"


def test_another_judges_comparisons_are_not_taken_over(tmp_path):
    with Journal(tmp_path / "said.jsonl") as journal:
        KeptComparisons(PairwiseJudge(Longer()), journal).compare([pair("a", "b")])
        other = Longer()
        other.model_version = "2"
        with pytest.raises(ValueError, match="holds what another judge said"):
            KeptComparisons(PairwiseJudge(other), journal)


@pytest.mark.parametrize("said", [("first", "tie"), ("second", "first"), ("unparsable", "second"), ("tie", "tie")])
def test_turned_twice_is_the_same(said):
    compared = Compared(*said)
    assert turned(turned(compared)) == compared
    expected = {"first": "second", "second": "first"}.get(compared.outcome, compared.outcome)
    assert turned(compared).outcome == expected
    assert turned(compared).conflict == compared.conflict
