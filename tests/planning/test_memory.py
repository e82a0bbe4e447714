"""Predictions: what is kept is exact, what is computed follows the formula; worked by hand for a small model."""

import dataclasses

import jax
import pytest

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.flops import num_params
from jaxrefine.planning.memory import predict
from jaxrefine.planning.remedies import remedies
from jaxrefine.planning.setup import Setup, with_training
from jaxrefine.planning.shapes import model_shape
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.training.finetuning import Finetuning

TINY = TransformerConfig(
    vocab_size=64, width=16, num_layers=2, num_heads=2, num_kv_heads=2, head_width=8, hidden_width=48
)
SETUP = Setup(
    training=Finetuning(
        objective=ObjectiveConfig(loss="pairwise_logistic", scorer="reward"), groups_per_step=16, max_prompt=8,
        max_response=8, slots=32,
    ),
    model=TINY,
    num_candidates=2,
)  # fmt: skip
DEVICES = 8


def _predicted(setup: Setup):
    devices = jax.devices()[:DEVICES]
    return predict(setup, setup.made(devices))


def test_each_kind_by_hand():
    """Two rows of 32 tokens a device: 16 groups of 24 tokens, one a row."""
    found = _predicted(SETUP)
    split = 2 * 64 * 16 + 2 * (4 * 16 * 16 + 3 * 16 * 48)
    whole = 2 * 2 * 16 + 16 + 16
    params = 4 * (split // 8 + whole)
    assert found.parameters == found.gradients == params
    assert found.optimizer == 2 * params + 8
    tokens = 2 * 32
    assert found.activations == 2 * 2 * tokens * 16  # two layers' inputs in bf16
    products = 2 * 8 + 2 * 16 + 2 * 48 + 2 * 16
    scores = 2 * 2 * 32 * 32 * 2  # rows, paths a row, of 32 slots, heads
    weights = 2 * (4 * 16 * 16 + 3 * 16 * 48)
    assert found.layer == 4 * tokens * (products + 16) + 12 * scores + 2 * weights
    assert found.logprobs == 0  # a reward head meets no vocabulary
    assert found.total == found.parameters + found.optimizer + found.batch + found.temporaries


def test_more_is_kept_by_policies_that_compute_less_again():
    found = {
        remat: _predicted(dataclasses.replace(SETUP, remat=remat)).activations
        for remat in ("full", "attention", "dots", "none")
    }
    assert found["full"] < found["attention"] < found["dots"] < found["none"]


def test_microbatches_divide_activations_and_double_gradients():
    one, two = _predicted(SETUP), _predicted(with_training(SETUP, num_microbatches=2))
    assert two.activations == one.activations // 2
    assert two.gradients == 2 * one.gradients


def test_the_tensor_axis_splits_heads_and_features_and_keeps_the_state():
    wide = dataclasses.replace(SETUP, mesh=MeshConfig(data=1, fsdp=4, tensor=2))
    assert _predicted(wide).parameters == _predicted(SETUP).parameters
    assert _predicted(wide).activations == 2 * _predicted(SETUP).activations  # twice the rows a device


def test_bfloat16_moments_halve_the_optimiser():
    if not hasattr(SETUP.training.optimizer, "moments"):
        pytest.skip("this version stores moments in fp32 alone")
    less = _predicted(with_training(SETUP, optimizer__moments="bfloat16"))
    assert less.optimizer < 0.6 * _predicted(SETUP).optimizer


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama-7b", 6_738_415_616),
        ("llama-13b", 13_015_864_320),
        ("llama-30b", 32_528_943_616),
        ("llama-65b", 65_285_660_672),
        ("LLaMA-2-70B", 68_976_648_192),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
        ("palm-540b", 540_354_281_472 + 119 * 18432),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(name: str, published: int):
    """PaLM: 118 · 18432 (2·12288 + 2·256 + 3·73728) + 256000·18432 = 540,354,281,472, and 119 norms of 18432."""
    config = model_shape(name)
    assert isinstance(config, TransformerConfig)
    assert num_params(config) == published


def test_an_unknown_size_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown model .*'llama-17b'; did you mean 'llama-7b'"):
        model_shape("llama-17b")


def test_the_shipped_model_is_read_from_its_directory():
    assert model_shape(None) == model_shape("arithmetic-small")


def test_log_probs_by_hand_and_the_remedy_of_a_smaller_chunk():
    """16 prompts × 2 responses × 256 tokens over 8 devices: 1,024 tokens each, all their logits at once."""
    model = dataclasses.replace(TINY, vocab_size=32_768)
    likelihood = ObjectiveConfig(mle_weight=1.0, loss="margin_ranking")
    training = dataclasses.replace(SETUP.training, objective=likelihood, max_response=256, slots=520)
    setup = dataclasses.replace(SETUP, model=model, training=training)
    head = 2 * 32_768 * 16
    # on the way back eight blocks of words, each of which is scattered when it is done
    assert _predicted(setup).logprobs == head + 10 * 1024 * 32_768 + 8 * (4096 + 1024) * 16
    found = {remedy.change: remedy for remedy in remedies(setup, jax.devices()[:DEVICES])}
    halved = found["--logprob-chunk 4096"].setup
    assert _predicted(halved).logprobs == head + 10 * 512 * 32_768 + 8 * (4096 + 1024) * 16
    assert found["--logprob-chunk 2048"].saves > found["--logprob-chunk 4096"].saves
    assert "--logprob-chunk 1024" not in found
