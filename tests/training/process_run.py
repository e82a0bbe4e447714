"""One of several processes of a run: ``python process_run.py OUT INDEX COUNT PORT DATA FSDP TENSOR SLICES [ENDLESS]``.

Trains twice three steps, with a checkpoint between, and writes what it found to ``OUT/<index>.npz``; or, with ENDLESS,
goes on until it is told to stop.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jaxrefine.sharding import MeshConfig, make_mesh, row_share
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig
from jaxrefine.training.state import init_params
from tests.training.tiny_objective import CountingLoader, TinyObjective, make_batch

SGD = OptimizerConfig(name="sgd", learning_rate=0.5, schedule="constant", momentum=0.9)


class Shares(CountingLoader):
    """Remembers the rows that it handed out."""

    def __init__(self, num_batches, share):
        super().__init__(num_batches, share)
        self.group_ids = []

    def batch(self, index):
        batch = super().batch(index)
        self.group_ids.append(batch.group_ids.reshape(-1))
        time.sleep(0.02 if self.num_batches > 6 else 0)
        return batch


def run(workdir, mesh, steps, share, losses):
    loader = Shares(max(steps, 6), share)
    config = TrainConfig(
        steps=steps, optimizer=SGD, num_microbatches=1, log_every_steps=1, checkpoints=CheckpointConfig(every_steps=3)
    )
    params = init_params(TinyObjective(), jax.random.key(0), make_batch(0))

    def record(step, metrics):
        losses[step] = metrics["loss"]

    state = fit(TinyObjective(), params, loader, config, workdir, mesh=mesh, on_metrics=record)
    return state, loader.group_ids


def gathered(tree):
    from jax.experimental import multihost_utils

    return [np.asarray(leaf) for leaf in jax.tree.leaves(multihost_utils.process_allgather(tree, tiled=True))]


def main(out, index, count, port, sizes, endless):
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
    mesh = make_mesh(MeshConfig(**sizes))
    share = row_share(mesh)
    losses: dict[int, float] = {}
    if endless:
        run(out / "run", mesh, 1_000_000, share, losses)
    run(out / "run", mesh, 3, share, losses)
    state, group_ids = run(out / "run", mesh, 6, share, losses)
    arrays = {f"params/{i}": leaf for i, leaf in enumerate(gathered(state.params))}
    arrays |= {f"gradients/{i}": leaf for i, leaf in enumerate(gathered(state.opt_state))}
    np.savez(
        out / f"{index}.npz", losses=[losses[step] for step in sorted(losses)], rows=np.stack(group_ids), share=share,
        **arrays,
    )  # fmt: skip


if __name__ == "__main__":
    directory, index, count, port, *sizes = sys.argv[1:9]
    axes = dict(zip(("data", "fsdp", "tensor", "slices"), map(int, sizes), strict=True))
    main(Path(directory), int(index), int(count), int(port), axes, sys.argv[9:] == ["ENDLESS"])
