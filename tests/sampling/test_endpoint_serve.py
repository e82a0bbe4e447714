"""A real server: a model that we exported answers through `transformers serve` as it does here."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.examples import Candidates
from jaxrefine.data.tokenizer import load_tokenizer
from jaxrefine.judging.contextual import ContextualConfig, ContextualJudge
from jaxrefine.judging.pairwise import Pair, PairwiseJudge
from jaxrefine.judging.prompts import Asking
from jaxrefine.judging.verdicts import GenerativeAsker
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.generate import generate
from jaxrefine.sampling.policies import Greedy
from jaxrefine.sampling.responder import Continuation, Message, Request
from tests.sampling.transformers_server import export, transformers_server

MAX_TOKENS = 24
QUESTIONS = [
    "Mary has 5 apples and buys 3 more. How many apples does she have?",
    "A box holds 6 pens. There are 4 boxes. How many pens are there?",
    "Tom had 17 coins and gave away 9. How many coins are left?",
]


def greedy_here(model: pathlib.Path, questions: list[str]) -> list[tuple[str, bool, int]]:
    """Text, whether it ended, and its number of tokens: our own greedy generation."""
    config, params = load_pretrained(model)
    tokenizer = load_tokenizer(model)
    prompts = [[tokenizer.bos_id, *tokenizer.encode(question + "\n")] for question in questions]
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    samples = generate(
        decoder,
        params,
        prompts,
        max_new_tokens=MAX_TOKENS,
        policy=Greedy,
        eos_id=tokenizer.eos_id,
        key=jax.random.key(0),
    )
    return [(tokenizer.decode(sample.content), sample.finished, len(sample.tokens)) for [sample] in samples]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointConfig]:
    model = export(tmp_path_factory.mktemp("served") / "model")
    with transformers_server(model) as url:
        yield EndpointConfig(base_url=url, model=str(model), concurrency=2)


@pytest.mark.serve
@pytest.mark.slow
def test_transformers_serve_answers_as_our_own_generation_does(served: EndpointConfig, tmp_path: pathlib.Path):
    asked = [Request(messages=(Message("user", q),), max_tokens=MAX_TOKENS, temperature=0.0) for q in QUESTIONS]
    asked += [Request(prompt=f"<|begin|>{q}\n", max_tokens=MAX_TOKENS, temperature=0.0) for q in QUESTIONS]
    with Endpoint(served, tmp_path, quiet=True) as endpoint:
        results = endpoint.respond(asked)
        spending = endpoint.spending
        [unscored] = endpoint.score([Continuation(prompt="<|begin|>1 + 1", text=" = 2")])
    expected = greedy_here(pathlib.Path(served.model), QUESTIONS)
    assert [(result.text, result.finished, result.reply_tokens) for result in results] == expected * 2
    assert {finished for _, finished, _ in expected} == {True, False}
    assert (spending.attempts, spending.reported) == (6, 6)
    # this server echoes nothing, and says nothing of it
    assert (unscored.kind, "cannot score" in unscored.reason) == ("invalid", True)


@pytest.mark.serve
@pytest.mark.slow
def test_a_refiner_reads_the_draft_of_an_earlier_turn(served: EndpointConfig, tmp_path: pathlib.Path):
    model = pathlib.Path(served.model)
    again = "Is that right? Solve it once more."
    drafts = [text for text, _, _ in greedy_here(model, QUESTIONS)]
    turns = [
        (Message("user", question), Message("assistant", draft), Message("user", again))
        for question, draft in zip(QUESTIONS, drafts, strict=True)
    ]
    with Endpoint(served, tmp_path, quiet=True) as endpoint:
        refined = endpoint.respond([Request(messages=one, max_tokens=MAX_TOKENS, temperature=0.0) for one in turns])
    whole = ["\n".join(message.content for message in one) for one in turns]
    assert [(one.text, one.finished, one.reply_tokens) for one in refined] == greedy_here(model, whole)
    assert [one.text for one in refined] != drafts


@pytest.mark.serve
@pytest.mark.slow
def test_judges_ask_a_real_server_and_count_what_a_model_without_words_cannot_say(
    served: EndpointConfig, tmp_path: pathlib.Path
):
    asking = Asking(max_tokens=4)
    example = Candidates("1", "How many is 2 + 3?", ("#### 5", "#### 6"), (0.0, 0.0))
    with Endpoint(served, tmp_path, quiet=True) as endpoint:
        [judged] = ContextualJudge(endpoint, ContextualConfig(asking=asking))([example])
        after_contextual = endpoint.spending.attempts
        pair = Pair("1", example.prompt, *example.responses)
        [compared], _ = PairwiseJudge(GenerativeAsker(endpoint, asking=asking)).compare([pair])
        after_both = endpoint.spending.attempts
    assert (judged.kind, after_contextual) == ("unparsable", 2)  # asked, and asked again once
    assert (compared.in_order, compared.swapped, after_both) == ("unparsable", "unparsable", 4)
