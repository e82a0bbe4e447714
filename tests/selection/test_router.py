"""A saved router gives back its probabilities, whatever the batch a query lies in; what does not fit is refused."""

from __future__ import annotations

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.conversion.loaded import LoadedModel, load_model
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.data.examples import Routed
from jaxrefine.data.packing import PackingConfig, batch_from_groups, tokenize_group
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.scoring.objectives import Objective
from jaxrefine.scoring.reference import make_score
from jaxrefine.scoring.scorers import RouterHead
from jaxrefine.selection.features import FeatureRouter
from jaxrefine.selection.router import ModelRouter, Router, load_router, save_router
from jaxrefine.systems.zooter_routers import new_encoder

MODELS = ("small", "middle", "large")
PROMPTS = ["What is two and three?", "Why?", "Name a colour of the sky, and of the sea, and of a field in May.", "two"]
TINY = EncoderConfig(
    vocab_size=300, width=16, num_layers=1, num_heads=2, head_width=8, hidden_width=16, max_positions=64
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small encoder of new parameters with a router's head."""
    start = tmp_path_factory.mktemp("start") / "encoder"
    new_encoder(start, TINY, PROMPTS, seed=0)
    loaded = load_model(start)
    kernel = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    made = tmp_path_factory.mktemp("router") / "model"
    save_pretrained(
        made, loaded.model.config, loaded.params, tokenizer_dir=start, dtype=jnp.float32,
        scorer={"kernel": jnp.asarray(kernel)}, scorer_config={"scorer": "router"},
    )  # fmt: skip
    save_router(made, MODELS, max_prompt=16)
    return made


@pytest.fixture(scope="module")
def router(directory: pathlib.Path) -> Router:
    return load_router(directory)


def test_probabilities_are_the_softmax_of_the_heads_logits(router: Router) -> None:
    """Against the objective's own scores of one packed row that holds all of the queries."""
    reader = router.reader
    assert isinstance(reader, ModelRouter)
    loaded: LoadedModel = reader._loaded
    groups = [
        tokenize_group(Routed(str(n), text, MODELS, (None,) * 3), loaded.tokenizer, group_id=n, max_prompt=16,
                       max_response=1)
        for n, text in enumerate(PROMPTS)
    ]  # fmt: skip
    packing = PackingConfig.fit(groups, rows=1, slots=96, expand=False)
    score = make_score(Objective(model=loaded.model, scorer=RouterHead(num_models=3)))
    scores = score(reader._params, batch_from_groups([groups], packing))
    logits = np.asarray(scores.logits[0, : len(groups)], np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(router.probabilities(PROMPTS), expected, rtol=1e-5)


def test_a_query_is_routed_alike_alone_and_in_any_batch(router: Router) -> None:
    together = router.probabilities(PROMPTS)
    np.testing.assert_allclose(together.sum(1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(router.probabilities(PROMPTS[::-1])[::-1], together, rtol=1e-5)
    np.testing.assert_allclose(router.probabilities(PROMPTS[:1]), together[:1], rtol=1e-5)
    assert router.choose(PROMPTS) == [MODELS[place] for place in together.argmax(1)]
    assert router.probabilities([]).shape == (0, 3)


def test_batches_of_one_size_are_compiled_once(router: Router) -> None:
    reader = router.reader
    assert isinstance(reader, ModelRouter)
    before = list(reader.shapes)
    router.probabilities(PROMPTS)
    router.probabilities([text.upper() for text in PROMPTS[1:]] + ["three"])
    assert reader.shapes == before


def test_an_empty_query_is_named(router: Router) -> None:
    with pytest.raises(ValueError, match="query 1 is empty"):
        router.probabilities(["Why?", " \n"])


def test_a_linear_router_comes_back_as_it_was_saved(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    made = FeatureRouter(rng.normal(size=(32, 2)), np.array([0.5, -0.5]), True, 0.1)
    save_router(tmp_path / "r", ["a", "b"], features=made)
    found = load_router(tmp_path / "r")
    assert found.models == ("a", "b")
    np.testing.assert_array_equal(found.probabilities(PROMPTS), made.probabilities(PROMPTS))


def test_a_directory_without_a_router_or_with_another_head_is_refused(
    directory: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"router\.json: no such file; a router's directory has one"):
        load_router(tmp_path)
    kept = (directory / "router.json").read_text()
    try:
        (directory / "router.json").write_text(json.dumps(json.loads(kept) | {"models": ["a", "b"]}))
        with pytest.raises(ValueError, match=r"the head has 3 rows; router\.json names 2 models"):
            load_router(directory)
    finally:
        (directory / "router.json").write_text(kept)
