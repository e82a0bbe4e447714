"""The published sizes, as shapes: loss and state of five models of seven billion parameters; the configs' numbers."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import pytest

from jaxrefine import config
from jaxrefine.conversion.apply import abstract_params
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.packing import PackingConfig, batch_from_groups
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.families import family_of
from jaxrefine.scoring.objectives import make_objective
from jaxrefine.sharding import make_mesh
from jaxrefine.systems.pandalm import new_config
from jaxrefine.training.optimizer import make_optimizer
from jaxrefine.training.state import abstract_state
from tests.models.families.published_gpt_configs import CEREBRAS_GPT, PUBLISHED

LLAMA_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "vocab_size": 32000,
}  # fmt: skip
SEVEN_BILLION = {
    "llama-7b": (LLAMA_7B, 6_738_415_616),
    "bloom-7b1": PUBLISHED["BLOOM 7B1"],
    # 32 layers of 12 · 4096² + 13 · 4096, tables of 50257 and 2048 positions, a last norm
    "cerebras-gpt-6.7b": (CEREBRAS_GPT, 32 * (12 * 4096**2 + 13 * 4096) + (50257 + 2048) * 4096 + 2 * 4096),
    "opt-6.7b": PUBLISHED["OPT 6.7B"],
    "pythia-6.9b": PUBLISHED["Pythia 6.9B"],
}


def batch() -> PackedBatch:
    groups = [TokenGroup(0, (5,) * 768, ((6,) * 256,))]  # 1024 tokens, as the judge's
    return batch_from_groups([groups], PackingConfig.fit(groups, rows=1, expand=True))


@pytest.mark.parametrize("name", SEVEN_BILLION)
def test_each_published_base_model_has_a_loss_and_a_state_of_every_optimiser_of_the_grid(name: str):
    attributes, num_params = SEVEN_BILLION[name]
    search = config.load("pandalm/search").search
    params = {"model": abstract_params(family_of(attributes["model_type"], name).from_hf(attributes))}
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_params
    decoder = Decoder(family_of(attributes["model_type"], name).from_hf(attributes), dtype=jnp.bfloat16, remat="full")
    objective = make_objective(search.default.objective, decoder)

    def loss(params):
        [(total, count, weight)] = objective.apply({"params": params}, batch())[0].values()
        return weight * total / count

    value = jax.eval_shape(loss, params)
    assert (value.shape, value.dtype) == ((), jnp.float32)
    mesh = make_mesh(config.load("pandalm/search").placement.mesh, jax.devices())
    moments = {}
    for trial in search.grid.trials():
        optimizer = search.grid.finetuning(trial, search.default).optimizer
        if optimizer.name not in moments:
            state = abstract_state(params, make_optimizer(optimizer, 10), mesh=mesh)
            moments[optimizer.name] = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    assert moments["adamw"] - moments["sgd"] in (2 * num_params, 2 * num_params + 1)  # Adam's own counter of steps


def test_the_published_search_has_eighty_trials_of_sixteen_runs_at_158_comparisons():
    configured = config.load("pandalm/search")
    assert [base.name for base in configured.bases] == list(SEVEN_BILLION)
    trials = configured.search.grid.trials()
    assert len(trials) == 80
    assert configured.search.grid.num_runs == 16
    assert configured.search.num_blocks == 4
    default = configured.search.default
    assert (default.optimizer.name, default.optimizer.learning_rate, default.epochs) == ("adamw", 2e-5, 3)


def test_the_published_judge_has_the_papers_settings():
    training = config.load("pandalm/judge").judge.training
    optimizer = training.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.schedule, optimizer.warmup_share) == (
        "adamw", 2e-5, "cosine", 0.03
    )  # fmt: skip
    assert (training.epochs, training.max_prompt + training.max_response) == (2, 1024)
    assert training.groups_per_step == 2 * 8 * 8
    assert training.objective.mle_normalize == "token"


@pytest.mark.parametrize("name", ["pandalm/tiny", "pandalm/small"])
def test_new_base_models_are_of_the_families_that_they_name(name: str):
    configured = config.load(name)
    families = []
    for base in configured.bases:
        if base.attributes:
            family, model, _ = new_config(pathlib.Path(base.model), base.attributes)
            families.append(family.model_type)
            assert model.vocab_size == 860
            assert model.max_positions >= 512
    wanted = {"pandalm/tiny": ["gpt_neox"], "pandalm/small": ["llama", "bloom", "gpt2", "opt", "gpt_neox"]}
    assert families == wanted[name]


def test_the_tiny_search_tries_at_least_twelve_settings_and_the_small_one_the_papers_eighty():
    assert len(config.load("pandalm/tiny").search.grid.trials()) >= 12
    assert len(config.load("pandalm/small").search.grid.trials()) == 80
