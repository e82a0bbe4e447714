"""One of several processes that write one model: ``python export_run.py OUT INDEX COUNT PORT``."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jaxrefine.conversion.apply import abstract_params, by_path, nested
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.models.config import TransformerConfig
from jaxrefine.sharding import MeshConfig, make_mesh, param_shardings

CONFIG = TransformerConfig(
    vocab_size=96, width=32, num_layers=3, num_heads=4, num_kv_heads=2, head_width=8, hidden_width=64
)
SHARD_BYTES = 20_000


def values():
    """Our parameters by path, as NumPy: every value differs."""
    start, leaves = 0, {}
    for path, leaf in by_path(abstract_params(CONFIG)).items():
        leaves[path] = np.arange(start, start + leaf.size, dtype=np.float32).reshape(leaf.shape) * 2.0**-10
        start += leaf.size
    return leaves


def placed(leaves, mesh):
    """The same on a mesh, each process putting what its devices hold."""
    tree = nested(leaves)
    shardings = param_shardings(tree, mesh)
    put = lambda x, where: jax.make_array_from_callback(x.shape, where, lambda index: x[index])  # noqa: E731
    return jax.tree.map(put, tree, shardings)


def main(out, index, count, port):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2))
    leaves = values()
    save_pretrained(out / "model", CONFIG, placed(leaves, mesh), max_shard_bytes=SHARD_BYTES)
    save_pretrained(out / "whole", CONFIG, placed(leaves, mesh))
    leaves["layers/feed_forward/up/kernel"] = np.full_like(leaves["layers/feed_forward/up/kernel"], 1e6)
    try:
        save_pretrained(out / "half", CONFIG, placed(leaves, mesh), dtype=np.float16, max_shard_bytes=30_000)
    except (ValueError, OSError) as error:
        (out / f"{index}.txt").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    directory, index, count, port = sys.argv[1:]
    main(Path(directory), int(index), int(count), int(port))
