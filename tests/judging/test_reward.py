"""Rewards of packed candidates equal those of separate sequences, whichever way the model was saved."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.conversion.classification import save_classifier
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.data.examples import Candidates
from jaxrefine.data.tokenizer import load_tokenizer, train_tokenizer
from jaxrefine.judging.files import judge_file
from jaxrefine.judging.local import LocalModel, Rows
from jaxrefine.judging.provenance import details_of
from jaxrefine.judging.reward import RewardJudge, load_reward_model
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.sharding import make_mesh
from tests.scoring import separate

from .scripted import random_params

VOCABULARY, LENGTH = 262, 32
DECODER = TransformerConfig(
    vocab_size=VOCABULARY, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, hidden_width=24
)
ENCODER = EncoderConfig(
    vocab_size=VOCABULARY, width=16, num_layers=2, num_heads=4, head_width=4, hidden_width=24, max_positions=64,
    num_token_types=2, pooler="tanh", num_labels=1,
)  # fmt: skip
EXAMPLES = [
    Candidates("1", "2+3?\n", ("5", "6, or so", "5", ""), (0.0,) * 4),
    Candidates("2", "Hello!\n", ("Hi.", "Good day."), (0.0,) * 2, finished=(True, False)),
    Candidates("3", "Why?\n", ("Because.",), (0.0,)),
]
PARAMS, ENCODER_PARAMS = random_params(DECODER), random_params(ENCODER)
KERNEL = np.random.default_rng(7).normal(size=(1, 16)).astype(np.float32)


@functools.cache
def tokenizer():
    return train_tokenizer(["2+3?", "Hello, good day."] * 2, vocab_size=VOCABULARY)


@functools.cache
def sequences():
    """Every candidate's tokens with its prompt: [candidates LENGTH], and their lengths."""
    words, lists = tokenizer(), []
    for example in EXAMPLES:
        for text, finished in zip(example.responses, example.finished, strict=True):
            ids = [words.bos_id, *words.encode(example.prompt), *words.encode(text)]
            lists.append(ids + [words.eos_id] * finished)
    return separate.sequences(lists, len(lists), LENGTH)


@functools.cache
def rewards_of_decoder():
    last = jax.jit(separate.last_hidden, static_argnums=1)(PARAMS, DECODER, *sequences())
    return np.asarray(last) @ KERNEL[0]


def rewards_of_encoder():
    tokens, lengths = sequences()
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (len(tokens), 1))
    ends = np.where(positions < lengths[:, None], lengths[:, None], positions + 1).astype(np.int32)
    model = Encoder(ENCODER)
    logits = jax.jit(lambda p, *row: model.apply({"params": p}, *row, method="classify"))(
        ENCODER_PARAMS, tokens, positions, ends
    )
    return np.asarray(logits)[:, 0, 0]


def saved(directory, kind):
    """A model directory of one of the three kinds, and the rewards that it must give."""
    tokenizer().save(directory / "tokenizer")
    options = {"tokenizer_dir": directory / "tokenizer"}
    target = directory / "model"
    if kind == "our own head":
        described = {"scorer": "reward"}
        save_pretrained(target, DECODER, PARAMS, scorer={"kernel": KERNEL}, scorer_config=described, **options)
    elif kind == "a decoder that classifies":
        save_classifier(target, DECODER, PARAMS, {"kernel": KERNEL}, family="llama", **options)
    else:
        save_pretrained(target, ENCODER, ENCODER_PARAMS, family="bert", **options)
        return target, rewards_of_encoder()
    return target, rewards_of_decoder()


@pytest.mark.parametrize("kind", ["our own head", "a decoder that classifies", "an encoder that classifies"])
def test_a_saved_reward_model_labels_candidates_as_separate_sequences(tmp_path, kind):
    directory, rewards = saved(tmp_path, kind)
    judge = load_reward_model(directory, name="r").judge()
    results = judge(EXAMPLES)
    found = [label for result in results for label in result.labels]
    np.testing.assert_allclose(found, rewards, rtol=1e-4)
    assert np.ptp(rewards) > 0.1
    assert results[0].labels[0] == results[0].labels[2]
    assert details_of(results[2])["tokens"] == [len(tokenizer().encode("Because.")) + 1]
    assert len(judge.scorer.shapes) == 1
    assert (judge.provenance.judge, judge.provenance.model) == ("reward model", "r")


def local(mesh=None):
    model = Decoder(DECODER, dtype=jnp.float32)
    return LocalModel(model=model, params=PARAMS, tokenizer=tokenizer(), name="r", version="1", mesh=mesh)


def judge_of(mesh=None, **rows):
    return RewardJudge(local(mesh), KERNEL, rows=Rows(**rows) if rows else None)


def test_rows_split_over_devices_give_the_same_rewards():
    spread = judge_of(mesh=make_mesh(devices=jax.devices()[:2]))(EXAMPLES)
    found = [label for result in spread for label in result.labels]
    np.testing.assert_allclose(found, rewards_of_decoder(), rtol=1e-4)


def test_a_file_is_scored_with_one_compilation_and_goes_on_where_it_was_stopped(tmp_path):
    lines = [
        f'{{"id": "{n}", "prompt": "{"2+3?" * (1 + n % 3)}", "candidates": [{{"text": "{n}"}}, {{"text": "no"}}]}}\n'
        for n in range(20)
    ]
    (tmp_path / "in.jsonl").write_text("".join(lines))
    rows = {"slots": 64, "batch_tokens": 128}

    class StoppedError(RuntimeError):
        pass

    stopping, seen = judge_of(**rows), []
    original = stopping.scorer._score

    def stop_after_two_batches(params, batch):
        seen.append(batch.tokens.shape)
        if len(seen) > 2:
            raise StoppedError
        return original(params, batch)

    stopping.scorer._score = stop_after_two_batches
    with pytest.raises(StoppedError):
        judge_file(stopping, tmp_path / "in.jsonl", tmp_path / "stopped.jsonl")
    left = len((tmp_path / "stopped.jsonl.journal").read_text().splitlines())
    assert 0 < left < 20
    again, whole = judge_of(**rows), stopping
    whole.scorer._score = original
    _, summary = judge_file(again, tmp_path / "in.jsonl", tmp_path / "stopped.jsonl")
    judge_file(whole, tmp_path / "in.jsonl", tmp_path / "whole.jsonl")
    assert (tmp_path / "stopped.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert str(summary) == "20 of 20 judged; refused 0, unparsable 0, unanswered 0"
    assert whole.scorer._score._cache_size() == len(whole.scorer.shapes) == 1


def test_a_head_of_several_numbers_or_none_is_no_reward_model(tmp_path):
    with pytest.raises(ValueError, match="a reward is one number; the head of 'r' gives 3"):
        RewardJudge(local(), np.zeros((3, 16), np.float32))
    tokenizer().save(tmp_path / "tokenizer")
    options = {"tokenizer_dir": tmp_path / "tokenizer"}
    save_pretrained(tmp_path / "plain", DECODER, PARAMS, **options)
    with pytest.raises(ValueError, match="no jaxrefine_scorer.safetensors lies beside it"):
        load_reward_model(tmp_path / "plain")
    save_classifier(tmp_path / "three", DECODER, PARAMS, {"kernel": np.zeros((3, 16), np.float32)},
                    family="llama", **options)  # fmt: skip
    with pytest.raises(ValueError, match="a reward is one number, and this head gives 3"):
        load_reward_model(tmp_path / "three")
    save_pretrained(tmp_path / "router", DECODER, PARAMS, scorer={"kernel": np.zeros((1, 16), np.float32)},
                    scorer_config={"scorer": "router"}, **options)  # fmt: skip
    with pytest.raises(ValueError, match="holds the head of scorer 'router'"):
        load_reward_model(tmp_path / "router")


def test_the_tokenizer_comes_with_the_model(tmp_path):
    directory, _ = saved(tmp_path, "a decoder that classifies")
    assert load_reward_model(directory).local.tokenizer.encode("2+3?") == load_tokenizer(directory).encode("2+3?")
    assert load_reward_model(directory).local.name == "model"
