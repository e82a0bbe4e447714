"""lm-eval on models of ours: likelihoods and texts are those of its own torch models, its accuracy is ours."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.data.tasks import TaskSource
from jaxrefine.evaluation import harness
from jaxrefine.evaluation.harness import OWN, HarnessConfig, ask_harness, headline, write_own_task
from jaxrefine.evaluation.harness_model import Likelihoods, _settled, harness_model, likeliest, numbers
from jaxrefine.judging.answers import is_right
from jaxrefine.sampling.policies import Policy
from tests.evaluation.tiny_model import save_tiny_model

TEXTS = [
    ("Tom has 3 apples.", " He gets 4 more."), ("Tom has 3 apples.", " He eats 1."), ("", "A word first."),
    ("How many? ", "12"),
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    return load_model(directory, Placement(num_devices=1))


@pytest.fixture
def lm_eval(monkeypatch, tmp_path):
    module = pytest.importorskip("lm_eval", reason="the extra is not installed")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    return module


def instances(lm_eval, kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=one, idx=n) for n, one in enumerate(arguments)]


def test_likelihoods_are_those_of_the_full_softmax_and_greedy_ones_are_told(model: LoadedModel):
    context = (1, 9, 4)
    tokens = jnp.array([[*context, 7, 8]])
    decoder, where = model.model.clone(attention="dense"), (jnp.arange(5)[None], jnp.full((1, 5), 5))
    hidden = decoder.apply({"params": model.params}, tokens, *where, method="trunk")[0]
    embedding = decoder.apply({"params": model.params}, method="output_embedding")
    logits = np.asarray(hidden, np.float64) @ np.asarray(embedding, np.float64).T
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    best = int(logits[2].argmax())
    pairs = [(context, (7, 8)), (context, (best,)), ((*context, 7), (8,)), (context, (7, 8))]
    found = Likelihoods(model)(pairs)
    assert [value for value, _ in found] == pytest.approx(
        [log_p[2, 7] + log_p[3, 8], log_p[2, best], log_p[3, 8], log_p[2, 7] + log_p[3, 8]], rel=1e-5
    )
    assert found[1][1] is True
    assert found[0][1] == (best == 7 and int(logits[3].argmax()) == 8)
    with pytest.raises(ValueError, match="a context and a continuation are wanted"):
        Likelihoods(model)([((), (1,))])


def test_the_likeliest_token_is_found_in_chunks_as_at_once():
    generator = np.random.default_rng(0)
    hidden, embedding = generator.normal(size=(2500, 4)), generator.normal(size=(33, 4))
    found = likeliest(jnp.asarray(hidden, jnp.float32), jnp.asarray(embedding, jnp.float32))
    assert found.tolist() == (hidden @ embedding.T).argmax(-1).tolist()


def test_a_context_that_is_too_long_loses_its_start(model: LoadedModel, capsys):
    room = model.model.config.max_positions
    long = tuple(int(n) for n in np.random.default_rng(1).integers(5, 50, room + 20))
    (cut, _), (whole, _) = Likelihoods(model)([(long, (7, 8)), (long[-(room - 1) :], (7, 8))])
    assert cut == whole
    assert f"1 of 2 contexts are longer than {room} tokens" in capsys.readouterr().err


@pytest.mark.torch
def test_our_model_says_what_lm_evals_own_says_of_the_same_directory(model: LoadedModel, lm_eval):
    pytest.importorskip("accelerate", reason="lm-eval's torch models want it")
    from lm_eval.models.huggingface import HFLM

    ours = harness_model(model)
    theirs = HFLM(pretrained=str(model.directory), device="cpu", batch_size=2, dtype="float32", add_bos_token=True)
    asked = instances(lm_eval, "loglikelihood", TEXTS)
    for (value, greedy), (wanted, their_greedy) in zip(
        ours.loglikelihood(asked), theirs.loglikelihood(asked, disable_tqdm=True), strict=True
    ):
        assert value == pytest.approx(wanted, rel=1e-5)
        assert greedy == their_greedy
    pairs = [(request.args, ours._encode_pair(*request.args)) for request in asked if request.args[0]]
    assert all(theirs._encode_pair(*args) == encoded for args, encoded in pairs)
    options = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    asked = instances(lm_eval, "generate_until", [(context, options) for context, _ in TEXTS[:2]])
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)


def test_a_rolling_likelihood_predicts_every_token_once(model: LoadedModel, lm_eval):
    ours = harness_model(model)
    text = "Tom has 3 apples. " * 40
    ids = tuple(model.tokenizer.encode(text))
    room, bos = model.model.config.max_positions, model.tokenizer.bos_id
    assert len(ids) > room
    # lm-eval's own windows, whose contexts and continuations overlap by all but one token
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    parts = [
        tuple(map(tuple, make_disjoint_window(pair)))
        for pair in get_rolling_token_windows(list(ids), bos, max_seq_len=room, context_len=1)
    ]
    wanted = sum(value for value, _ in Likelihoods(model)(parts))
    [found] = ours.loglikelihood_rolling(instances(lm_eval, "loglikelihood_rolling", [(text,)]))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_lm_evals_accuracy_on_our_tasks_is_ours(model: LoadedModel, lm_eval, tmp_path, monkeypatch):
    tasks = TaskSource(num=5, split="test").read()
    right, wrong = (f"So.\n#### {task.answer}\n" for task in tasks[:1]), ("#### 1\n#### 2", "12", "", "It is 7.")
    texts = dict(zip([task.prompt for task in tasks], [*right, *wrong], strict=True))
    from lm_eval.api.model import LM

    class Scripted(LM):
        def generate_until(self, requests):
            return [texts[request.args[0]] for request in requests]

        loglikelihood = loglikelihood_rolling = None

    monkeypatch.setattr(harness, "harness_model", lambda *args, **options: Scripted())
    file = write_own_task(tasks, tmp_path / "task", max_new_tokens=8)
    found = ask_harness(model, HarnessConfig(own=True), file)
    ours = np.mean([is_right(texts[task.prompt], task.answer) == "right" for task in tasks])
    assert headline(found[OWN])[:2] == ("exact_match,stated", ours) == ("exact_match,stated", 0.2)


def test_the_shipped_model_is_as_good_in_lm_evals_eyes_as_in_ours(lm_eval, tmp_path):
    shipped = pathlib.Path(harness.__file__).parent.parent / "shipped" / "arithmetic-small"
    loaded = load_model(shipped, Placement(num_devices=1))
    tasks = TaskSource(num=8, split="test").read()
    file = write_own_task(tasks, tmp_path / "task", max_new_tokens=48)
    found = ask_harness(loaded, HarnessConfig(own=True), file, max_new_tokens=48)
    lm = harness_model(loaded)
    options = {"until": [], "max_gen_toks": 48}
    texts = lm.generate_until(instances(lm_eval, "generate_until", [(task.prompt, options) for task in tasks]))
    rights = [is_right(text, task.answer) == "right" for text, task in zip(texts, tasks, strict=True)]
    assert 0 < sum(rights) < len(rights)
    assert found[OWN]["exact_match,stated"] == np.mean(rights)


@pytest.mark.parametrize(
    ("options", "limit", "policy", "ends"),
    [
        ({}, 256, Policy(temperature=0.0), ()),
        ({"until": ".", "max_gen_toks": 5, "do_sample": False, "temperature": 0.7}, 5, Policy(temperature=0.0), (".",)),
        ({"until": ["a", "b"], "temperature": 0.5, "top_p": 0.9}, 256, Policy(temperature=0.5, top_p=0.9), ("a", "b")),
        ({"do_sample": True, "top_k": 3}, 256, Policy(temperature=1.0, top_k=3), ()),
    ],
)  # fmt: skip
def test_options_of_a_request_are_read_by_lm_evals_names(options, limit: int, policy: Policy, ends):
    assert _settled(options, 256) == (limit, policy, ends)


def test_what_is_shown_is_the_customary_metric_with_its_error():
    assert headline({"word_perplexity,none": 9.0}) == ("word_perplexity,none", 9.0, pytest.approx(np.nan, nan_ok=True))
    assert headline({"acc,none": 0.5, "acc_stderr,none": 0.1}) == ("acc,none", 0.5, 0.1)
    assert headline({})[0] == ""
    assert numbers({"alias": "x", "acc,none": np.float64(0.5), "acc_stderr,none": "N/A", "n": True}) == {
        "acc,none": 0.5
    }


def test_what_is_not_there_is_refused_before_anything_runs(tmp_path, monkeypatch):
    HarnessConfig().check("search.harness")
    with pytest.raises(ValueError, match="give yours with --search.harness.include DIRECTORY"):
        HarnessConfig(include=str(tmp_path / "no"), tasks=("mine",)).check("search.harness")
    with pytest.raises(ValueError, match="say which with --search.harness.tasks NAME"):
        HarnessConfig(include=str(tmp_path)).check("search.harness")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'jaxrefine\[lm-eval\]'"):
        HarnessConfig(own=True).check("search.harness")
    tasks = TaskSource(num=2).read()
    with pytest.raises(ValueError, match="of 2 tasks 1 have no known answer"):
        write_own_task([tasks[0], dataclasses.replace(tasks[1], answer=None)], tmp_path, max_new_tokens=8)
