"""Both orders, ties and conflicts, and answers that cannot be read: a table by hand, counts, and real reviews."""

from __future__ import annotations

import gzip
import itertools
import json

import pytest

from jaxrefine.data.examples import Candidates, Comparison
from jaxrefine.judging.pairwise import Compared, Pair, PairwiseJudge, comparisons_of, summarize_pairs
from jaxrefine.judging.prompts import Asking, Prompt
from jaxrefine.judging.provenance import Unjudged, provenance_of
from jaxrefine.judging.verdicts import READERS, GenerativeAsker, read_leading, read_marked
from jaxrefine.sampling.responder import Failure, Reply

from .scripted import Scripted, shown

STRENGTH = {"strong": 3, "also strong": 3, "middling": 2, "weak": 1}


def fair(request):
    first, second = (STRENGTH[text] for text in shown(request).values())
    return f"So it is.\nVerdict: {'tie' if first == second else '1' if first > second else '2'}"


def judge(answer, **options):
    responder = Scripted(answer)
    return PairwiseJudge(GenerativeAsker(responder, **options)), responder


def example(*responses, id="1"):
    return Candidates(id, "Tell me.\n", responses, (0.0,) * len(responses))


@pytest.mark.parametrize(
    ("in_order", "swapped", "outcome", "conflict"),
    [
        ("first", "first", "first", None),
        ("second", "second", "second", None),
        ("tie", "tie", "tie", None),
        ("first", "second", "tie", "reversed"),
        ("second", "first", "tie", "reversed"),
        ("first", "tie", "tie", "wavering"),
        ("tie", "second", "tie", "wavering"),
        ("first", "unparsable", "unparsable", None),
        ("unparsable", "unparsable", "unparsable", None),
        ("tie", "unanswered", "unanswered", None),
        ("unparsable", "unanswered", "unanswered", None),
        ("refused", "refused", "refused", None),
    ],
)
def test_what_two_orders_come_to(in_order, swapped, outcome, conflict):
    found = Compared(in_order, swapped)
    assert (found.outcome, found.conflict) == (outcome, conflict)
    pair = Pair("1", "Tell me.", "a", "b")
    expected = Comparison("1", "Tell me.", "a", "b", outcome) if outcome in ("first", "second", "tie") else None
    assert found.comparison(pair) == expected


def test_counts_and_rates_by_hand():
    said = [
        ("first", "first"), ("first", "first"), ("second", "second"), ("tie", "tie"),
        ("first", "second"), ("second", "first"), ("first", "second"), ("second", "tie"),
        ("first", "unparsable"), ("unparsable", "unparsable"), ("unanswered", "first"),
    ]  # fmt: skip
    found = summarize_pairs([*itertools.starmap(Compared, said), Compared("tie", "tie", identical=True)])
    assert (found.first, found.second, found.tie, found.identical) == (2, 1, 6, 1)
    assert (found.reversed, found.wavering, found.shown_first) == (3, 1, 2)
    assert (found.unparsable, found.unanswered, found.refused, found.pairs) == (2, 1, 0, 12)
    assert found.conflict_rate == 4 / 8
    assert found.tie_rate == 6 / 9
    assert found.unparsable_rate == 2 / 10
    assert found.record()["conflict_rate"] == 0.5
    assert "50.0% (3 reversed, 2 of them to what is shown first; 1 wavering); unparsable 20.0%" in str(found)


def test_no_pairs_have_rates_of_nought():
    assert summarize_pairs([]).record() == dict.fromkeys(summarize_pairs([]).record(), 0)


def test_every_pair_is_asked_in_both_orders():
    judging, responder = judge(fair)
    found, summary = judging.compare(
        [Pair("1", "Sing!", "weak", "strong"), Pair("2", "Sing!", "strong", "also strong")]
    )
    assert [tuple(shown(request).values()) for request in responder.asked] == [
        ("weak", "strong"), ("strong", "weak"), ("strong", "also strong"), ("also strong", "strong")
    ]  # fmt: skip
    assert {shown(request, "Task")[""] for request in responder.asked} == {"Sing!"}
    assert found == [Compared("second", "second"), Compared("tie", "tie")]
    assert (summary.second, summary.tie, summary.conflict_rate) == (1, 1, 0.0)


@pytest.mark.parametrize("verdict", ["1", "2"])
def test_a_judge_that_looks_at_the_order_alone_gives_nothing_but_ties(verdict):
    judging, _ = judge(lambda request: f"Verdict: {verdict}")
    found, summary = judging.compare([Pair(str(n), "Sing!", f"a{n}", f"b{n}") for n in range(6)])
    assert {pair.outcome for pair in found} == {"tie"}
    assert (summary.reversed, summary.conflict_rate) == (6, 1.0)
    assert summary.shown_first == (6 if verdict == "1" else 0)


def test_one_text_twice_is_a_tie_without_asking():
    judging, responder = judge(fair)
    found, summary = judging.compare([Pair("1", "Sing!", "weak", "weak\n")])
    assert (found[0].outcome, summary.identical, responder.asked) == ("tie", 1, [])
    assert summary.conflict_rate == 0.0


def test_two_responses_get_the_labels_of_their_comparison():
    judging, _ = judge(fair)
    examples = [example("strong", "weak"), example("weak", "strong", id="2"), example("strong", "also strong", id="3")]
    results = judging(examples)
    for result, verdict in zip(results, ("first", "second", "tie"), strict=True):
        expected = Comparison(result.id, result.prompt, *result.responses, verdict).candidates()
        assert (result.responses, result.labels) == (expected.responses, expected.labels)


def test_labels_of_several_responses_are_their_mean_points():
    judging, responder = judge(fair)
    (found,) = judging([example("middling", "strong", "weak", "also strong", "weak")])
    # of three opponents: middling beats weak; strong beats two and ties; weak loses all
    assert found.labels == pytest.approx((1 / 3, 2.5 / 3, 0.0, 2.5 / 3, 0.0))
    assert len(responder.asked) == 12
    assert provenance_of(found).judge == "pairwise"
    assert summarize_pairs(comparisons_of([found])).tie == 1


def test_an_unparsable_answer_counts_for_nobody():
    def answer(request):
        return "I cannot say." if set(shown(request).values()) == {"strong", "weak"} else fair(request)

    judging, _ = judge(answer)
    pair, three = judging([example("strong", "weak"), example("strong", "middling", "weak", id="2")])
    assert isinstance(pair, Unjudged)
    assert (pair.kind, pair.reason) == ("unparsable", "1 of 1 comparisons unparsable")
    assert three.labels == (1.0, 0.5, 0.0)  # strong beats middling, middling beats weak; the third pair is left out
    summary = summarize_pairs(comparisons_of([pair, three]))
    assert (summary.unparsable, summary.first, summary.pairs) == (2, 2, 4)
    assert summary.unparsable_rate == 0.5


def test_a_pair_without_an_answer_leaves_the_example_for_another_run():
    def answer(request):
        weak = "weak" in shown(request).values()
        return Failure(kind="unavailable", reason="down") if weak else fair(request)

    judging, _ = judge(answer)
    (found,) = judging([example("strong", "middling", "weak")])
    assert (found.kind, found.reason) == ("unanswered", "2 of 3 comparisons unanswered")


@pytest.mark.parametrize("reports", [True, False])
def test_every_result_is_reported_once_and_known_ones_are_not_asked(reports):
    responder = Scripted(fair, reports=reports)
    reported = {}

    def done(index, result):
        assert index not in reported
        reported[index] = result

    examples = [example("strong", "weak", id=str(n)) for n in range(3)] + [example("weak", id="alone")]
    results = PairwiseJudge(GenerativeAsker(responder))(examples, done=done, known={1})
    assert reported == {index: results[index] for index in (0, 2, 3)}
    assert results[1] is None
    assert results[3].kind == "refused"
    assert len(responder.asked) == 4


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: 1", "first"),
        ("Reasons.\n\n**Verdict: 2**\n", "second"),
        ("verdict: TIE.", "tie"),
        ("Verdict: 1\nor so\nVerdict: 1", "first"),
        ("Verdict: 1\nNo.\nVerdict: 2", None),
        ("Verdict: 1\nThat is all.", None),
        ("Verdict: 3", None),
        ("Verdict: 12", None),
        ("Verdict: 1 or 2", None),
        ("My verdict: 1", None),
        ("Tie", None),
        ("", None),
    ],
)
def test_a_marked_verdict_is_the_last_line_and_the_only_one(text, verdict):
    assert read_marked(text) == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("1\n\n### Reason: it is right.", "first"),
        (" 2 \n", "second"),
        ("\nTie\nBoth.", "tie"),
        ("1 is better", None),
        ("Response 1\n1", None),
        ("garbage", None),
        ("", None),
    ],
)
def test_a_leading_verdict_is_the_first_line(text, verdict):
    assert read_leading(text) == verdict


def test_a_reply_that_was_cut_has_a_verdict_only_where_it_comes_first():
    assert read_marked("Verdict: 1", finished=False) is None
    assert read_leading("1", finished=False) is None  # 12?
    assert read_leading("1\nbeca", finished=False) == "first"


def test_a_prompt_of_ones_own_may_fence_its_texts_itself():
    prompt = Prompt("pairwise", "### Task\n{instruction}\n### 1\n{first}\n### 2\n{second}\n### Best:\n")
    options = {"prompt": prompt, "fenced": False, "reader": "leading", "asking": Asking(style="completion")}
    judging, responder = judge(lambda request: "Tie\nno difference", **options)
    judging.compare([Pair("1", "Sing!", "{second}", "b")])
    assert responder.asked[0].prompt == "### Task\nSing!\n### 1\n{second}\n### 2\nb\n### Best:\n"


def test_every_setting_makes_another_judge():
    prompt = Prompt("pairwise", "{instruction}{first}{second}")
    options = [{}, {"prompt": prompt}, {"fenced": False}, {"reader": "leading"}, {"asking": Asking(max_tokens=3)}]
    assert len({judge(fair, **some)[0].provenance.digest() for some in options}) == len(options)


def test_an_unknown_reader_or_a_prompt_for_another_judge_is_refused():
    with pytest.raises(ValueError, match="unknown reader 'mark'; did you mean 'marked'"):
        GenerativeAsker(Scripted(fair), reader="mark")
    with pytest.raises(ValueError, match="for the pairwise judge is wanted, got one for 'contextual'"):
        GenerativeAsker(Scripted(fair), prompt=Prompt("contextual", "{instruction}{responses}{format}"))
    assert set(READERS) == {"marked", "leading", "last"}


def test_a_cut_reply_is_unparsable():
    judging, _ = judge(lambda request: Reply(text="Verdict: 1", finished=False))
    _, summary = judging.compare([Pair("1", "Sing!", "a", "b")])
    assert summary.unparsable == 1


@pytest.mark.shared_data
def test_conflicts_of_a_real_judge_are_those_of_its_published_scores(shared_data):
    """GPT-3.5 printed the same two numbers for both orders on 55 of 80 questions, as the README of the data says."""
    with gzip.open(shared_data / "cherry_llm_reviews" / "vicuna_wrap_reviews_gpt3.5.json.gz", "rt") as file:
        scores = [[json.loads(row[name]) for name in ("scores", "scores_reverse")] for row in json.load(file)["data"]]
    assert len(scores) == 80
    assert sum(one == other for one, other in scores) == 55

    def said(one, other):
        return "tie" if one == other else "first" if one > other else "second"

    found = summarize_pairs(Compared(said(*one), said(*other[::-1])) for one, other in scores)
    # a reversal is a product of two differences, each first minus second as shown, above 0; wavering is exactly one 0
    products = [(a - b) * (c - d) for (a, b), (c, d) in scores]
    assert found.reversed == sum(product > 0 for product in products) > 40
    assert found.wavering == sum((a == b) != (c == d) for (a, b), (c, d) in scores)
    assert found.first + found.second == sum(product < 0 for product in products)
    assert found.shown_first == sum(a > b and c > d for (a, b), (c, d) in scores)
