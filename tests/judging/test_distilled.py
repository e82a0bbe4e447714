"""A trained judge's form: what it learns is what is read; shots are shown as they are, braces included."""

from __future__ import annotations

import pytest

from jaxrefine.data.readers_pandalm import JudgementRecord
from jaxrefine.judging.distilled import DISTILLED, JudgeForm, with_shots
from jaxrefine.judging.pairwise import Pair, PairwiseJudge
from jaxrefine.judging.verdicts import read_last

from .scripted import Scripted

RECORD = JudgementRecord(
    id="7", instruction="Add.", input="2 and 3", first="5", second="{6}", verdict="second",
    reason="Braces are nice.", reference="{5}",
)  # fmt: skip
SAYS = ["verdict, reason, reference", "verdict", "reference, verdict"]


@pytest.mark.parametrize(
    ("says", "response"),
    [
        ("verdict, reason, reference", "2\n\nReason: Braces are nice.\n\nReference:\n{5}"),
        ("verdict", "2"),
        ("reference, verdict", "{5}\n2"),
    ],
)
def test_what_a_judge_learns_to_say(says, response: str):
    example = JudgeForm(says=says).example(RECORD)
    assert example.response == response
    assert example.prompt.startswith("Add.\n\n2 and 3\n\nFirst response:\n5\n")
    assert "{6}" in example.prompt


@pytest.mark.parametrize("says", SAYS)
def test_a_judge_that_says_what_it_learned_is_read_as_the_teacher_meant_it(says):
    form = JudgeForm(says=says)
    records = [RECORD, RECORD.swapped()]
    learned = {form.example(record).prompt: form.response(record) for record in records}
    responder = Scripted(lambda request: learned[request.prompt])
    pair = Pair("7", RECORD.comparison().prompt, RECORD.first, RECORD.second)
    [found], summary = PairwiseJudge(form.asker(responder)).compare([pair])
    assert (found.in_order, found.swapped) == ("second", "second")
    assert summary.conflict_rate == 0


@pytest.mark.parametrize(("says", "reason"), [("verdict, reason, reference", "Braces are nice."), ("verdict", "")])
def test_the_reason_of_a_reply_is_heard_where_its_form_marks_one(says, reason: str):
    form, heard = JudgeForm(says=says), {}
    responder = Scripted(lambda request: form.response(RECORD))
    asker = form.asker(responder, lambda question, text: heard.update({question: form.reason(text)}))
    PairwiseJudge(asker).compare([Pair("7", "Add.", "5", "{6}")])
    assert heard == {("Add.", "5", "{6}"): reason, ("Add.", "{6}", "5"): reason}
    assert form.reason("1\n\nReason: It is cut") == ("It is cut" if reason else "")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("#### 5\n1", "first"), ("2", "second"), ("5\nTie\n\n", "tie"), ("1\n#### 5", None), ("5\n12", None), ("", None)],
)
def test_a_verdict_alone_in_the_last_line(text: str, verdict):
    assert read_last(text) == verdict
    assert read_last(text, finished=False) is None


def test_shots_stand_before_the_question_with_their_verdicts():
    shown = with_shots(DISTILLED, [RECORD, RECORD.swapped()]).render(instruction="Say {x}.", first="x", second="y")
    first, second, question = shown.split("Judgement:\n")[:3]
    assert first.startswith("Add.\n\n2 and 3\n\nFirst response:\n5\n\nSecond response:\n{6}")
    assert second.startswith("2\n\nAdd.")
    assert question.startswith("1\n\nSay {x}.\n\nFirst response:\nx")
    assert shown.endswith("Judgement:\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "{instruction} {first}"}, r"the field \{second\} is missing"),
        ({"user": "{instruction} {first} {second} {third}"}, "unknown field 'third'"),
    ],
)
def test_forms_that_cannot_be_are_refused(changes, message: str):
    with pytest.raises(ValueError, match=message):
        JudgeForm(**changes)
