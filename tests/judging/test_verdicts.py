"""Verdicts by likelihood: whole texts of several tokens, packed or from a server, against separate sequences."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.judging.local import LocalModel, Rows
from jaxrefine.judging.pairwise import Pair, PairwiseJudge
from jaxrefine.judging.prompts import Prompt
from jaxrefine.judging.verdicts import PAIRWISE, LikelihoodAsker, VerdictTexts
from jaxrefine.sampling.responder import Failure
from tests.scoring import made, separate

from .scripted import BOS, Letters, Teacher, random_params

PROMPT = Prompt("pairwise", "a{instruction}b{first}b{second}c")
TEXTS = VerdictTexts(first="de", second="gf", tie="ihg")
PAIRS = [
    Pair(str(n), *texts)
    for n, texts in enumerate([("l", "m", "n"), ("kk", "j", "al"), ("l", "nn", "m"), ("j", "k", "i")])
]

params = functools.partial(random_params, made.CONFIG)
span_logprobs = jax.jit(separate.span_logprobs, static_argnums=1)


def local():
    return LocalModel(model=made.decoder(), params=params(0), tokenizer=Letters(), name="tiny")


def separately(instruction, first, second):
    """The log-probs of the three texts, each after its own copy of the prompt."""
    prompt = [BOS, *Letters().encode(f"a{instruction}b{first}b{second}c")]
    texts = [Letters().encode(text) for text in TEXTS.texts]
    tokens, lengths = separate.sequences([prompt + text for text in texts], 3, 14)
    return np.asarray(span_logprobs(params(0), made.CONFIG, tokens, np.full(3, len(prompt), np.int32), lengths))


def expected(pair):
    """What each order says: the likeliest of the three, and that of the other order turned back."""
    one = int(np.argmax(separately(pair.instruction, pair.first, pair.second)))
    other = int(np.argmax(separately(pair.instruction, pair.second, pair.first)))
    return ("first", "second", "tie")[one], ("second", "first", "tie")[other]


def test_the_likeliest_whole_text_is_the_verdict():
    judge = PairwiseJudge(LikelihoodAsker(local(), prompt=PROMPT, verdicts=TEXTS, fenced=False))
    found, summary = judge.compare(PAIRS)
    assert [(pair.in_order, pair.swapped) for pair in found] == [expected(pair) for pair in PAIRS]
    assert summary.pairs == 4
    assert summary.unparsable == summary.refused == 0


def test_the_oracle_tells_texts_apart_by_more_than_rounding():
    values = np.array([separately(pair.instruction, pair.first, pair.second) for pair in PAIRS])
    gaps = np.diff(np.sort(values, axis=1), axis=1)
    assert gaps.min() > 0.1
    assert {expected(pair) for pair in PAIRS} == {("second", "first"), ("first", "first"), ("second", "second")}


def test_a_prompt_that_is_too_long_is_refused_and_not_shortened():
    rows = Rows(max_prompt=8)
    asker = LikelihoodAsker(local(), prompt=PROMPT, verdicts=TEXTS, rows=rows, fenced=False)
    found, summary = PairwiseJudge(asker).compare([Pair("1", "l", "m", "n"), Pair("2", "l", "mm", "n")])
    assert [pair.outcome for pair in found][1] == "refused"
    assert found[0].in_order == expected(Pair("1", "l", "m", "n"))[0]  # bos a l b m b n c: just eight
    assert summary.refused == 1
    (example,) = PairwiseJudge(asker)([Candidates("1", "l", ("mmm", "n"), (0.0, 0.0))])
    assert (example.kind, example.reason) == ("refused", "1 of 1 comparisons refused: longer than rows.max_prompt")


def scored(**logprobs):
    said = {"first": [-1.0, -1.0], "second": [-1.5], "tie": [-4.0]} | logprobs
    return Teacher(lambda prompt, text: said[text])


NAMES = VerdictTexts(first="first", second="second", tie="tie")


def test_a_server_is_asked_for_every_text_in_both_orders_and_texts_are_scored_whole():
    teacher = scored()
    found, _ = PairwiseJudge(LikelihoodAsker(teacher, verdicts=NAMES)).compare([Pair("1", "l", "m", "n")])
    assert (found[0].in_order, found[0].swapped) == ("second", "first")  # −2 of two tokens is below −1.5 of one
    assert [asked.text for asked in teacher.asked] == ["first", "second", "tie"] * 2
    mean = VerdictTexts(first="first", second="second", tie="tie", length_power=1.0)
    found, _ = PairwiseJudge(LikelihoodAsker(scored(), verdicts=mean)).compare([Pair("1", "l", "m", "n")])
    assert found[0].in_order == "first"


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (Failure(kind="deadline", reason="slow"), "unanswered"),
        (None, "unparsable"),
        ([math.nan], "unparsable"),
        ([-0.1], "tie"),
    ],
)
def test_what_a_server_does_not_say_is_no_verdict(said, outcome):
    found, _ = PairwiseJudge(LikelihoodAsker(scored(tie=said), verdicts=NAMES)).compare([Pair("1", "l", "m", "n")])
    assert found[0].outcome == outcome


def test_texts_that_are_equally_likely_are_a_tie():
    assert VerdictTexts().choose([-2.0, -1.0, -1.0]) == "tie"
    assert VerdictTexts().choose([-1.0, -1.0, -2.0]) == "tie"
    assert VerdictTexts().choose([-math.inf, -1.0, -2.0]) == "unparsable"


@pytest.mark.parametrize("texts", [{"first": ""}, {"first": " 2"}])
def test_verdict_texts_are_three(texts):
    with pytest.raises(ValueError, match="verdict texts are three different ones"):
        VerdictTexts(**texts)


def test_the_shipped_prompt_ends_where_the_verdict_begins():
    teacher = scored()
    PairwiseJudge(LikelihoodAsker(teacher, verdicts=NAMES)).compare([Pair("1", "l", "m", "n")])
    assert {asked.prompt[-8:] for asked in teacher.asked} == {"Verdict:"}
    assert PAIRWISE.user.endswith("{format}")


def test_other_texts_or_weights_are_another_judge():
    other = LocalModel(model=made.decoder(), params=params(1), tokenizer=Letters(), name="tiny")
    askers = [LikelihoodAsker(local()), LikelihoodAsker(other), LikelihoodAsker(local(), verdicts=TEXTS)]
    assert len({PairwiseJudge(asker).provenance.digest() for asker in askers}) == 3
