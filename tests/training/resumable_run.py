"""A run of its own process: ``python resumable_run.py WORKDIR STEPS``; prints the digest of the final state."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jaxrefine.sharding import make_mesh, row_share
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig
from jaxrefine.training.state import init_params
from tests.training.tiny_objective import CountingLoader, TinyObjective, make_batch


def digest(tree) -> str:
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        sha.update(np.asarray(leaf).tobytes())
    return sha.hexdigest()


def main(workdir: Path, steps: int) -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    config = TrainConfig(
        steps=steps,
        optimizer=OptimizerConfig(learning_rate=0.01),
        checkpoints=CheckpointConfig(every_steps=5),
        log_every_steps=1,
    )
    params = init_params(TinyObjective(), jax.random.key(0), make_batch(0))
    loader = CountingLoader(steps, row_share(mesh))
    state = fit(TinyObjective(), params, loader, config, workdir, mesh=mesh)
    print(json.dumps({"digest": digest(state), "step": int(state.step)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
