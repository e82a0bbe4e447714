"""Teacher likelihood by hand, from a server's log-probs, and from a model against separate sequences."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.judging.likelihood import (
    AskedLikelihood,
    ModelLikelihood,
    SaidLikelihood,
    likelihood,
    said_by_teacher,
    total_logprob,
)
from jaxrefine.judging.local import LocalModel, Rows
from jaxrefine.judging.provenance import Unjudged, details_of, provenance_of
from jaxrefine.sampling.responder import Failure, Reply
from jaxrefine.scoring.scorers import Scores
from tests.scoring import made, separate

from .scripted import BOS, EOS, Letters, Teacher, random_params


def test_the_score_is_the_log_prob_over_the_length_to_a_power():
    assert likelihood(-8.0, 4, length_power=0.0) == -8.0
    assert likelihood(-8.0, 4, length_power=1.0) == -2.0
    assert likelihood(-8.0, 4, length_power=0.5) == -4.0
    assert likelihood(-10.0, 10) == pytest.approx(-(10.0**-0.3))  # -10 / 10^1.3
    with pytest.raises(ValueError, match="num_tokens = 0"):
        likelihood(0.0, 0)


def test_above_one_the_longer_of_two_equal_means_wins():
    assert likelihood(-8.0, 8) > likelihood(-4.0, 4)
    assert likelihood(-8.0, 8, length_power=1.0) == likelihood(-4.0, 4, length_power=1.0)
    assert likelihood(-8.0, 8, length_power=0.0) < likelihood(-4.0, 4, length_power=0.0)


PROMPT = Candidates("1", "Tell me.\n", answer="5")
REPLIES = [
    Reply(text="short", logprobs=(-0.5, -1.5), model="t-1"),
    Reply(text="longer", logprobs=(-0.5, -1.0, -0.25, -0.25), finished=False, model="t-1"),
]


def test_a_teachers_own_replies_are_labelled_by_what_it_said_of_them():
    example = said_by_teacher(PROMPT, [*REPLIES, Failure(kind="deadline", reason="slow")])
    assert (example.responses, example.finished, example.answer) == (("short", "longer"), (True, False), "5")
    assert example.meta["failed"] == 1
    (found,) = SaidLikelihood("teacher", length_power=0.5)([example])
    assert found.labels == pytest.approx((-2.0 / math.sqrt(2), -1.0))
    assert details_of(found) == {"tokens": [2, 4]}
    assert provenance_of(found).settings == {"length_power": 0.5}


def test_another_power_needs_no_other_replies():
    example = said_by_teacher(PROMPT, REPLIES)
    labels = {power: SaidLikelihood("t", length_power=power)([example])[0].labels for power in (0.0, 1.0, 2.0)}
    assert labels == {0.0: (-2.0, -2.0), 1.0: (-1.0, -0.5), 2.0: (-0.5, -0.125)}


@pytest.mark.parametrize(
    ("logprobs", "reason"),
    [
        (None, "no log-probs"),
        ((), "no log-probs"),
        ((-1.0, float("nan")), "nan is no log-probability"),
        ((-math.inf,), "-inf is no log-probability"),
        ((-1.0, 0.5), "0.5 is no log-probability"),
    ],
)
def test_what_is_no_log_prob_makes_no_label(logprobs, reason):
    assert reason in total_logprob(Reply(text="x", logprobs=logprobs))
    found = said_by_teacher(PROMPT, [REPLIES[0], Reply(text="x", logprobs=logprobs)])
    assert isinstance(found, Unjudged)
    assert found.kind == "unparsable"
    assert reason in found.reason


def test_a_log_prob_that_rounding_put_above_nought_is_one():
    assert total_logprob(Reply(text="x", logprobs=(1e-6, -1.0))) == (-1.0 + 1e-6, 2)


def test_no_replies_at_all_are_unanswered_with_every_reason():
    found = said_by_teacher(PROMPT, [Failure(kind="budget", reason="spent"), Failure(kind="deadline", reason="late")])
    assert (found.kind, found.reason) == ("unanswered", "late; spent")


@pytest.mark.parametrize(
    "said",
    [
        None, [], {"logprob": -1.0}, [{"logprob": "-1", "tokens": 1}], [{"logprob": -1.0}], [{"tokens": 1}], [3],
        [{"logprob": -1.0, "tokens": 0}], [{"logprob": -1.0, "tokens": 1.5}], [{"logprob": -1.0, "tokens": 1}] * 2,
    ],
)  # fmt: skip
def test_candidates_that_no_teacher_spoke_of_are_refused(said):
    meta = {} if said is None else {"said": said}
    (found,) = SaidLikelihood("teacher")([Candidates("1", "p", ("a",), (0.0,), meta=meta)])
    assert found.kind == "refused"


def words(prompt, text):
    return [-0.5 if word in prompt else -2.0 for word in text.split()]


def test_a_server_is_asked_about_each_different_response_once():
    teacher = Teacher(words)
    example = Candidates("1", "one two", ("one three", "two", "one three"), (0.0,) * 3)
    (found,) = AskedLikelihood(teacher, length_power=1.0)([example])
    assert found.labels == (-1.25, -0.5, -1.25)
    assert details_of(found) == {"tokens": [2, 1, 2]}
    assert [asked.text for asked in teacher.asked] == ["one three", "two"]
    assert provenance_of(found).model_version == "3"


def test_what_a_server_does_not_say_leaves_the_example_without_labels():
    said = {"x": Failure(kind="unavailable", reason="down"), "y": None, "z": [-1.0]}
    teacher = Teacher(lambda prompt, text: said[text])
    texts = [("z", "x"), ("z", "y"), ("z", ""), (), ("z",)]
    examples = [Candidates(str(n), "p", text, (0.0,) * len(text)) for n, text in enumerate(texts)]
    reported = []
    results = AskedLikelihood(teacher)(examples, done=lambda index, _: reported.append(index))
    kinds = [getattr(result, "kind", None) for result in results]
    assert kinds == ["unanswered", "unparsable", "refused", "refused", None]
    assert sorted(reported) == [0, 1, 2, 3, 4]
    assert results[4].labels == (-1.0,)


params = functools.partial(random_params, made.CONFIG)
span_logprobs = jax.jit(separate.span_logprobs, static_argnums=1)


def local(**fields):
    return LocalModel(model=made.decoder(), params=params(0), tokenizer=Letters(), name="tiny", **fields)


EXAMPLES = [
    Candidates("1", "abc", ("de", "f", "dea"), (0.0,) * 3),
    Candidates("2", "n", ("gg",), (0.0,), finished=(False,)),
    Candidates("3", "hijkl", ("m", "", "m", "ab"), (0.0,) * 4, finished=(True, True, True, False)),
    Candidates("4", "ba", ("cccc", "bb"), (0.0,) * 2),
]
CUT = Candidates("cut", "abc", ("def", "de"), (0.0, 0.0), finished=(False, True))


def separately(example_id, power):
    """Each response a sequence of its own, without packing: the scores of an example by its id."""
    letters = Letters()
    example = {example.id: example for example in (*EXAMPLES, CUT)}[example_id]
    prompt = [BOS, *letters.encode(example.prompt)]
    responses = [
        letters.encode(text) + [EOS] * finished
        for text, finished in zip(example.responses, example.finished, strict=True)
    ]
    tokens, lengths = separate.sequences([prompt + response for response in responses], 4, 12)
    starts = np.full(4, len(prompt), np.int32)
    totals = np.asarray(span_logprobs(params(0), made.CONFIG, tokens, starts, lengths))
    return [float(total) / len(response) ** power for total, response in zip(totals, responses, strict=False)]


def test_a_model_scores_packed_candidates_as_separate_sequences():
    results = ModelLikelihood(local(), length_power=1.3)(EXAMPLES)
    for example, result in zip(EXAMPLES, results, strict=True):
        np.testing.assert_allclose(result.labels, separately(example.id, 1.3), rtol=1e-5)
    assert details_of(results[2]) == {"tokens": [2, 1, 2, 2]}


def test_many_examples_are_scored_with_few_shapes_and_known_ones_do_not_change_the_rest():
    examples = [
        Candidates(f"{n}-{example.id}", example.prompt, example.responses, example.labels, finished=example.finished)
        for n in range(10)
        for example in EXAMPLES
    ]
    judge = ModelLikelihood(local(), rows=Rows(slots=64, batch_tokens=128, planned_together=16))
    results = judge(examples)
    assert len(judge.scorer.shapes) == 1
    reported = {}
    known = set(range(len(examples))) - {5, 17, 39}
    again = ModelLikelihood(local(), rows=Rows(slots=64, batch_tokens=128, planned_together=16))
    rest = again(examples, done=reported.__setitem__, known=known)
    assert sorted(reported) == [5, 17, 39]
    assert [index for index, result in enumerate(rest) if result is not None] == [5, 17, 39]
    for index in (5, 17, 39):
        assert rest[index] == results[index]  # to the last bit


def without_computing(judge):
    """The judge with a model that gives each candidate the number of its row's shape: nothing is compiled."""
    judge.scorer._score = lambda params, batch: Scores(scores=np.full(batch.labels.shape, float(batch.tokens.size)))
    return judge


def test_a_shape_grows_when_later_prompts_need_it_and_never_shrinks():
    def prompts(lengths):
        return [Candidates(f"{n} {length}", "a" * length, ("b",), (0.0,)) for n, length in enumerate(lengths)]

    rows = Rows(slots=32, batch_tokens=32, planned_together=4)
    examples = prompts([5] * 4 + [40] * 4 + [5] * 4)
    judge = without_computing(ModelLikelihood(local(), rows=rows))
    labels = [result.labels[0] for result in judge(examples)]
    assert [shape.slots for shape in judge.scorer.shapes] == [32, 64]
    assert labels == [32.0] * 4 + [64.0] * 8
    resumed = without_computing(ModelLikelihood(local(), rows=rows))
    assert [result.labels[0] for result in resumed(examples, known=range(9))[9:]] == [64.0] * 3


def test_responses_that_are_too_long_are_cut_and_said_so():
    judge = ModelLikelihood(local(), length_power=0.0, rows=Rows(max_response=3))
    (found,) = judge([Candidates("1", "abc", ("defg", "de"), (0.0, 0.0))])
    np.testing.assert_allclose(found.labels, separately("cut", 0.0), rtol=1e-5)
    assert details_of(found) == {"tokens": [3, 3], "cut": [0]}


def test_what_cannot_be_scored_is_refused_and_the_rest_is_scored():
    examples = [
        Candidates("1", "abc"),
        Candidates("2", "abc", ("", "d"), (0.0, 0.0), finished=(False, True)),
        Candidates("3", "!", ("d",), (0.0,)),
        EXAMPLES[0],
    ]
    results = without_computing(ModelLikelihood(local()))(examples)
    assert [getattr(result, "reason", None) for result in results] == [
        "it has no responses", "a response is empty and did not finish", "the prompt is empty", None
    ]  # fmt: skip
    assert {result.kind for result in results[:3]} == {"refused"}


def test_other_weights_are_another_judge():
    one = ModelLikelihood(local()).provenance
    other = LocalModel(model=made.decoder(), params=params(1), tokenizer=Letters(), name="tiny")
    assert ModelLikelihood(other).provenance.digest() != one.digest()
    assert ModelLikelihood(local()).provenance.digest() == one.digest()
    assert ModelLikelihood(local(version="v2")).provenance.model_version == "v2"
    assert ModelLikelihood(local(), length_power=1.0).provenance.digest() != one.digest()
