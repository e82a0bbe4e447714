"""The one train step with an encoder: a router learns from rewards, and a mesh gives what one device gives."""

from __future__ import annotations

import functools

import jax
import numpy as np

from jaxrefine.data.packing import PackingConfig, TokenGroup, batch_from_groups
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.encoder_config import EncoderConfig, RelativePositions
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import init_params, init_state
from jaxrefine.training.step import make_train_step

MODEL = EncoderConfig(
    vocab_size=32, width=16, num_layers=2, num_heads=4, head_width=4, hidden_width=32, positions="none", pooler="gelu",
    relative=RelativePositions(max_distance=16, num_buckets=8, shared_projections=True, norm=True),
)  # fmt: skip
OBJECTIVE = ObjectiveConfig(loss="reward_distillation", scorer="router", num_models=3)
SGD = OptimizerConfig(name="sgd", learning_rate=0.1, schedule="constant", momentum=0.9, clip_norm=None)


@functools.cache
def trained(data: int, fsdp: int, tensor: int):
    """Losses of three steps on one batch of four rows, and the parameters after them."""
    rng = np.random.default_rng(0)
    rows = [
        [
            TokenGroup(4 * row + g, tuple(rng.integers(3, 32, 2 + g).tolist()), (), rewards=tuple(rng.normal(size=3)))
            for g in range(3)
        ]
        for row in range(4)
    ]
    batch = batch_from_groups(rows, PackingConfig(rows=4, slots=12, scored=0, groups=3, candidates=0, rewards=3))
    objective = make_objective(OBJECTIVE, Encoder(MODEL, remat="full"))
    optimizer = make_optimizer(SGD, 3)
    mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor), jax.devices()[: data * fsdp * tensor])
    params = init_params(objective, jax.random.key(0), batch)
    state = init_state(params, optimizer, jax.random.key(1), mesh=mesh)
    step = make_train_step(objective, optimizer, mesh=mesh, compiler_options={"xla_backend_optimization_level": 0})
    losses = []
    for _ in range(3):
        state, metrics = step(state, to_device(batch, mesh=mesh))
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state.params)


def test_a_router_on_an_encoder_learns():
    losses, _ = trained(1, 1, 1)
    assert losses[2] < losses[1] < losses[0]


def test_a_mesh_trains_an_encoder_as_one_device_does():
    (alone, params), (losses, sharded) = trained(1, 1, 1), trained(2, 2, 2)
    np.testing.assert_allclose(losses, alone, rtol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), params, sharded)
