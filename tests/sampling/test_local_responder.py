"""A model of ours answers requests: what a reply depends on, stops, log-probs, chats, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.special

from jaxrefine.sampling.generate import Sample
from jaxrefine.sampling.local_responder import LocalResponder, plain_chat
from jaxrefine.sampling.responder import Failure, Message, Reply, Request, Responder
from tests.models.tiny import apart, logits, make, trunk


class Letters:
    """One id a letter; 1 begins and 49 ends a text."""

    bos_id, eos_ids, eos_id, pad_id, vocab_size = 1, (49,), 49, 0, 61

    def encode(self, text):
        return [ord(letter) - ord("!") + 2 for letter in text]

    def decode(self, ids):
        return "".join(chr(token - 2 + ord("!")) for token in ids if token not in (1, 49))


DECODER, PARAMS = make()
MODEL = LocalResponder(
    DECODER, PARAMS, Letters(), name="tiny", template=plain_chat, max_new_tokens=12, slots=3, columns=1, seed=7
)  # fmt: skip
REQUEST = Request(prompt="2+2=", max_tokens=12, seed=1)


def seeds(*numbers, **fields):
    return [dataclasses.replace(REQUEST, seed=number, **fields) for number in numbers]


BASE = MODEL.respond(seeds(*range(8)))


def test_it_is_a_responder():
    assert isinstance(MODEL, Responder)
    assert (MODEL.name, len(MODEL.version) > 8) == ("tiny", True)


def test_seeds_give_different_texts_and_equal_requests_equal_replies():
    assert all(isinstance(reply, Reply) for reply in BASE)
    assert len({reply.text for reply in BASE}) > 4
    assert {reply.finished for reply in BASE} == {True, False}
    assert MODEL.respond([REQUEST, REQUEST]) == [BASE[1], BASE[1]]


def test_a_reply_does_not_depend_on_the_other_requests():
    others = [*seeds(5, 3), Request(prompt="why", max_tokens=3), *seeds(0)]
    assert [MODEL.respond(others)[index] for index in (0, 1, 3)] == [BASE[5], BASE[3], BASE[0]]


def test_prompt_and_reply_are_counted_with_begin_and_end():
    for reply in BASE:
        assert reply.prompt_tokens == 1 + 4
        assert reply.reply_tokens == len(reply.text) + reply.finished
        assert (reply.model, reply.cost, reply.tokens, reply.logprobs) == ("tiny", 0.0, None, None)


def test_greedy_log_probs_are_those_of_the_model():
    [reply] = MODEL.respond(seeds(1, temperature=0.0, logprobs=True))
    assert reply.text == "".join(reply.tokens)
    assert len(reply.logprobs) == len(reply.tokens) > 0
    ids = Letters().encode(reply.text)
    text = [1, *Letters().encode("2+2="), *ids]
    found = np.asarray(logits(DECODER, PARAMS, trunk(DECODER, PARAMS, apart([text]))))[0, 4 : 4 + len(ids)]
    assert found.argmax(-1).tolist() == ids
    expected = found.max(-1) - scipy.special.logsumexp(found.astype(np.float64), axis=-1)
    np.testing.assert_allclose(reply.logprobs, expected, rtol=1e-4, atol=1e-5)


def test_a_stop_ends_the_text_before_it():
    [whole] = MODEL.respond(seeds(2, logprobs=True))
    assert len(whole.text) > 4
    mark = whole.text[3]
    place = whole.text.index(mark)
    # a stop is part of the request, so give it the whole one's number: compare by cutting, not by drawing again
    cut = MODEL._reply(dataclasses.replace(REQUEST, stop=("never", mark), logprobs=True), sample_of(whole), 5)
    assert (cut.text, cut.finished) == (whole.text[:place], True)
    assert (cut.tokens, cut.logprobs) == (whole.tokens[:place], whole.logprobs[:place])


def sample_of(reply):
    return Sample(tuple(Letters().encode(reply.text)), reply.logprobs, finished=False)


def test_a_chat_goes_through_the_template():
    class Marked(Letters):
        def encode(self, text):
            assert text == "Add.\n1+1\n"
            return [5, 6]

    model = LocalResponder(
        DECODER, PARAMS, Marked(), name="tiny", template=plain_chat, max_new_tokens=12, slots=3, columns=1
    )
    [reply] = model.respond([Request(messages=(Message("system", "Add."), Message("user", "1+1")), max_tokens=2)])
    assert reply.prompt_tokens == 3


def test_done_is_told_of_each_result_once():
    told = {}
    results = MODEL.respond([*seeds(0, 1), Request(prompt="x", max_tokens=13)], done=lambda i, r: told.update({i: r}))
    assert [told[index] for index in range(3)] == results


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request(prompt="2", max_tokens=13), "max_tokens = 13; this model was set up for 12"),
        (Request(prompt="2" * 250, max_tokens=6), "251 tokens and max_tokens = 6, in all beyond the 256 positions"),
        (Request(messages=(Message("user", "1+1"),), max_tokens=2), "no template for chats"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(request_, reason):
    model = LocalResponder(DECODER, PARAMS, Letters(), name="tiny", version="1", max_new_tokens=12, slots=3, columns=1)
    [failure] = model.respond([request_])
    assert isinstance(failure, Failure)
    assert failure.kind == "refused"
    assert reason in failure.reason
