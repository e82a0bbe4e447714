from __future__ import annotations

import pytest

from jaxrefine.data.examples import Candidates, Comparison, Instruction, Routed
from jaxrefine.data.groups import Refused, TokenGroup, mle_weights, tokenize_group

from .words import ANOTHER_EOS, BOS, EOS, Words

LIMITS = {"max_prompt": 10, "max_response": 10}


def _group(example, **options) -> TokenGroup:
    group = tokenize_group(example, Words(), group_id=3, **{**LIMITS, **options})
    assert isinstance(group, TokenGroup), group
    return group


def test_bos_stands_before_the_prompt_alone_and_eos_ends_each_finished_response_once():
    group = _group(Candidates("a", "11 12", ("21 22", "23"), (1.0, 0.0), finished=(True, False)))
    assert group.prompt == (BOS, 11, 12)
    assert group.responses == ((21, 22, EOS), (23,))
    assert group.labels == (1.0, 0.0)


def test_a_long_prompt_loses_its_start_and_keeps_bos_and_its_end():
    assert _group(Instruction("a", "11 12 13 14 15", "21"), max_prompt=3).prompt == (BOS, 14, 15)


def test_without_a_bos_the_whole_limit_is_the_prompts():
    class NoBos(Words):
        bos_id = None

    group = tokenize_group(Instruction("a", "11 12 13", "21"), NoBos(), group_id=0, max_prompt=2, max_response=2)
    assert group.prompt == (12, 13)


def test_a_response_cut_by_length_gets_no_eos():
    example = Instruction("a", "11", "21 22 23")
    assert _group(example, max_response=4).responses == ((21, 22, 23, EOS),)
    assert _group(example, max_response=3).responses == ((21, 22, 23),)
    assert _group(example, max_response=2).responses == ((21, 22),)


@pytest.mark.parametrize("end", [EOS, ANOTHER_EOS])
def test_sampled_ids_keep_the_end_that_was_sampled_and_get_no_second_one(end):
    example = Candidates("a", "11", ("21", "22"), (0.0, 0.0), finished=(True, False))
    group = _group(example, response_ids=[(21, end), (22,)])
    assert group.responses == ((21, end), (22,))


def test_an_empty_response_that_finished_is_its_eos():
    assert _group(Instruction("a", "11", "")).responses == ((EOS,),)


REFUSED = [
    (("",), (False,), "a response is empty and did not finish"),
    (("21 2 22",), (True,), "a response has an end-of-sequence token inside"),
    (("21 1 22",), (True,), "a response has a begin-of-sequence token inside"),
]


@pytest.mark.parametrize(("texts", "finished", "reason"), REFUSED)
def test_a_group_whose_response_would_vanish_or_lie_is_refused(texts, finished, reason):
    example = Candidates("a", "11", ("31", *texts), (0.0, 0.0), finished=(True, *finished))
    assert tokenize_group(example, Words(), group_id=3, **LIMITS) == Refused(3, reason)


def test_a_prompt_of_no_tokens_is_refused():
    assert tokenize_group(Instruction("a", " ", "21"), Words(), group_id=3, **LIMITS) == Refused(
        3, "the prompt is empty"
    )


def test_verdict_words_are_whole_and_their_sentence_is_never_cut():
    example = Candidates("a", "11 12 13 14", ("21 22 23",), (1.0,))
    group = _group(example, max_prompt=2, max_response=2, suffix="31 32 33 34", verdicts=(" yes", " no"))
    assert group.suffix == (31, 32, 33, 34)
    assert group.verdicts == ((500,), (501, 502))


def test_a_comparison_is_two_candidates_and_a_routed_query_has_none():
    assert _group(Comparison("a", "11", "21", "22", "second")).labels == (0.0, 1.0)
    routed = _group(Routed("a", "11", ("small", "large"), (0.25, None)))
    assert (routed.responses, routed.rewards, routed.reward_where) == ((), (0.25, 0.0), (True, False))


@pytest.mark.parametrize(
    ("mle_on", "weights"),
    [
        ("best", (0.0, 1.0, 0.0)),
        ("right", (0.0, 1.0, 1.0)),
        ("all", (1.0, 1.0, 1.0)),
        ("first", (1.0, 0.0, 0.0)),
        ("none", (0.0, 0.0, 0.0)),
    ],
)
def test_likelihood_reads_the_responses_it_is_told_to(mle_on, weights):
    assert mle_weights((0.0, 2.0, 2.0), mle_on) == weights


def test_an_unknown_choice_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'best'"):
        _group(Instruction("a", "11", "21"), mle_on="bset")


def test_as_many_ids_as_responses():
    with pytest.raises(ValueError, match="1 response_ids for 2 responses"):
        _group(Candidates("a", "11", ("21", "22"), (0.0, 0.0)), response_ids=[(21,)])
