"""What the slices of a mesh send each other in one step of the real decoder: sums, each device its own share."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from jaxrefine.models.decoder import Decoder
from jaxrefine.scoring.objectives import make_objective
from jaxrefine.sharding import MeshConfig, make_mesh, path_of
from jaxrefine.training.optimizer import make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import abstract_state, init_params
from jaxrefine.training.step import make_train_step
from tests.training.test_objectives import MODEL, OBJECTIVES, QUICKLY, SGD, batch_for

COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{(.*?)\}")
LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}")


def numbers(text):
    return [int(number) for number in text.split(",")]


def groups(line):
    """The devices of each group of a collective, in any of XLA's ways to write them."""
    if found := MESH.search(line):
        axes, dims, order, split = found.groups()
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
        devices = np.arange(np.prod(list(sizes.values())))
        if dims:
            devices = (
                devices.reshape(numbers(dims)).transpose(numbers(order)) if order else devices.reshape(numbers(dims))
            )
        inside = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", split)]
        return np.moveaxis(devices.reshape(list(sizes.values())), inside, range(-len(inside), 0)).reshape(
            -1, int(np.prod([list(sizes.values())[axis] for axis in inside]))
        ).tolist()  # fmt: skip
    if found := IOTA.search(line):
        shape, dims, order = found.groups()
        devices = np.arange(np.prod(numbers(dims))).reshape(numbers(dims))
        return (devices.transpose(numbers(order)) if order else devices).reshape(numbers(shape)).tolist()
    found = LISTED.search(line)
    return [numbers(one) for one in re.findall(r"\{([\d,]+)\}", found[1])]


def elements(types):
    """Of all arrays that a collective gives."""
    return sum(int(np.prod(numbers(dims))) if dims else 1 for dims in re.findall(r"\w+\[([\d,]*)\]", types))


@pytest.fixture(scope="module")
def crossing():
    """(kind, elements) of each collective with devices of both slices."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2, slices=2))
    objective = make_objective(OBJECTIVES["ranking"], Decoder(MODEL, dtype=np.float32, attention="dense"))
    optimizer = make_optimizer(SGD, 3)
    batch = to_device(batch_for("ranking"), mesh=mesh)
    params = jax.eval_shape(lambda: init_params(objective, jax.random.key(0), batch_for("ranking")))
    step = make_train_step(objective, optimizer, mesh=mesh, compiler_options=QUICKLY)
    text = step.compile(abstract_state(params, optimizer, mesh=mesh), batch).call.as_text()
    found = [
        (match[2], elements(match[1]), groups(line)) for line in text.splitlines() if (match := COLLECTIVE.search(line))
    ]
    assert found
    return params, [(kind, size) for kind, size, where in found if any(len({d // 4 for d in one}) > 1 for one in where)]


def test_only_sums_cross_slices(crossing):
    _, found = crossing
    assert {kind for kind, _ in found} == {"all-reduce"}


def test_each_device_sends_its_own_share_of_the_gradients_once(crossing):
    """A quarter of each matrix: fsdp and tensor split it in four; of stacked ones, a layer in each turn of the scan."""
    params, found = crossing
    share = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        size = leaf.size // MODEL.num_layers if "/layers/" in path_of(path) else leaf.size
        share += size if "norm" in path_of(path) else size // 4
    sent = sum(size for _, size in found)
    assert share <= sent <= 1.25 * share  # sums of losses and metrics besides, and more of the embedding on a CPU
