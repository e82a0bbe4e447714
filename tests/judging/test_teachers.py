"""Teachers and what is kept of their verdicts, with every pair worked by hand; nothing is asked twice."""

from __future__ import annotations

import pytest

from jaxrefine.artefacts.journal import Journal
from jaxrefine.data.examples import Instruction
from jaxrefine.judging.pairwise import Pair
from jaxrefine.judging.teachers import AskedTeacher, ExactTeacher, Opinion, parse_opinion, teach
from jaxrefine.sampling.responder import Failure

from .scripted import Scripted

TASK = Instruction("1", "2+3?\n", "2+3=5\n#### 5", answer="5", meta={"instruction": "2+3?"})


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("#### 5", "#### 6", "first"),
        ("#### 6", "#### 5", "second"),
        ("#### 6", "#### 7", "tie"),
        ("5", "#### 6", "tie"),  # an answer that is not marked is none
        ("#### 5", "2+3=5 so it is\n#### 5", "first"),
        ("2+3=5 so it is\n#### 5", "#### 5", "second"),
        ("a\n#### 5", "ab\n#### 5", "tie"),  # 8 of 9 characters: more than 80 %
        ("", "", "tie"),
    ],
)
def test_right_beats_wrong_and_then_the_clearly_shorter_wins(first: str, second: str, verdict: str):
    assert ExactTeacher([TASK]).opinion("2+3?", first, second).verdict == verdict


def test_the_exact_teacher_gives_the_solution_and_says_why():
    opinion = ExactTeacher([TASK]).opinion("2+3?", "#### 6", "#### 5")
    assert opinion == Opinion(
        verdict="second", reason="Response 2 gives 5, response 1 does not.", reference="2+3=5\n#### 5"
    )
    with pytest.raises(ValueError, match=r"knows no answer to '1\+1\?'"):
        ExactTeacher([TASK]).opinion("1+1?", "a", "b")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("1\nReason: it is right.\nReference: 5", "first"),
        ("tie \n\nReason: both.\n\nReference:\nfive\nor 5\n", "tie"),
        ("1\nReason:\nReference: 5", "unparsable"),
        ("1\nReason: right.", "unparsable"),
        ("1 is better\nReason: right.\nReference: 5", "unparsable"),
        ("I think\n1\nReason: right.\nReference: 5", "unparsable"),
        ("", "unparsable"),
    ],
)
def test_a_teachers_reply_is_read_strictly(text: str, verdict: str):
    assert parse_opinion(text).verdict == verdict
    assert parse_opinion(text, finished=False).verdict == "unparsable"


class Table:
    """Says of (first, second) what a table has."""

    name = "table"

    def __init__(self, verdicts: dict[str, str]) -> None:
        self.verdicts, self.asked = verdicts, []

    def ask(self, questions, done):
        for index, (_, first, second) in reversed(list(enumerate(questions))):
            self.asked.append(first + second)
            done(index, Opinion(verdict=self.verdicts[first + second], reason=f"of {first}{second}", reference="c"))


VERDICTS = {
    "ab": "first", "ba": "second",  # one verdict, in both orders
    "ac": "first", "ca": "first",  # whatever is shown first
    "ad": "tie", "da": "first",  # wavering
    "ae": "unparsable", "ea": "second",
    "af": "tie", "fa": "tie",
}  # fmt: skip


def pairs(*texts: str) -> list[Pair]:
    return [Pair(text, "Which?", text[0], text[1]) for text in texts]


def test_what_cannot_be_read_or_depends_on_the_order_is_dropped_and_counted(tmp_path):
    with Journal(tmp_path / "opinions.jsonl") as journal:
        found = teach(pairs("ab", "ac", "ad", "ae", "af", "aa"), Table(VERDICTS), journal)
    assert (found.kept, found.identical, found.invalid, found.order_dependent) == (2, 1, 1, 2)
    assert [(record.id, record.first, record.second, record.verdict, record.reason) for record in found.records] == [
        ("ab", "a", "b", "first", "of ab"),
        ("ab-swapped", "b", "a", "second", "of ba"),
        ("af", "a", "f", "tie", "of af"),
        ("af-swapped", "f", "a", "tie", "of fa"),
    ]
    assert (found.summary.reversed, found.summary.wavering, found.summary.unparsable) == (1, 1, 1)
    assert "2 of 6 pairs kept" in str(found)
    assert found.record()["order_dependent"] == 2


def test_nobody_is_asked_twice(tmp_path):
    teacher = Table(VERDICTS)
    with Journal(tmp_path / "opinions.jsonl") as journal:
        teach(pairs("ab", "ac"), teacher, journal)
    with Journal(tmp_path / "opinions.jsonl") as journal:
        found = teach(pairs("ab", "ac", "af"), teacher, journal, both_orders=False)
    assert sorted(teacher.asked) == ["ab", "ac", "af", "ba", "ca", "fa"]
    assert [record.id for record in found.records] == ["ab", "af"]
    with Journal(tmp_path / "opinions.jsonl") as journal, pytest.raises(ValueError, match="2 pairs have only 1 ids"):
        teach(pairs("ab", "ab"), teacher, journal)


def test_a_language_model_is_asked_in_the_form_that_is_read(tmp_path):
    def answer(request):
        shown = request.messages[-1].content
        if "<writer-1>\nsilence" in shown:
            return Failure(kind="deadline", reason="too late")
        better = 1 if "<writer-1>\ngood" in shown else 2
        return f"{better}\nReason: it is good.\nReference: good"

    responder = Scripted(answer)
    asked = [Pair("1", "Be good.", "good", "bad"), Pair("2", "Be good.", "silence", "good")]
    with Journal(tmp_path / "opinions.jsonl") as journal:
        found = teach(asked, AskedTeacher(responder), journal)
    assert [(record.verdict, record.reference) for record in found.records] == [("first", "good"), ("second", "good")]
    assert (found.kept, found.invalid) == (1, 1)
    assert "Be good." in responder.asked[0].messages[-1].content
