"""Steps compiled ahead of time, so that what compiling costs is known and no call recompiles unseen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from jaxrefine.data.batch import PackedBatch
from jaxrefine.sharding import batch_sharding, param_shardings, replicated
from jaxrefine.training.state import abstract


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """One executable, and what making it cost."""

    call: Callable[..., Any]
    compile_seconds: float
    """Tracing, lowering and compiling."""
    peak_memory_bytes: int
    """XLA's own figure for one device: arguments, outputs and temporaries, less what is donated."""
    flops: float
    """XLA's count for one device; loops are counted once."""


class Step:
    """A jitted function of (tree, batch), compiled ahead of time once for each shape of batch.

    Calling it never recompiles silently: ``compiled`` holds one entry for each shape seen so far.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        mesh: Mesh,
        donate: bool,
        compiler_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.mesh = mesh
        self._compiler_options = dict(compiler_options or {})
        self.compiled: dict[Any, CompiledStep] = {}
        self._function = function
        self._donate = donate

    def __call__(self, tree: Any, batch: PackedBatch) -> Any:
        """The function's own result; the first call with a new shape of batch compiles."""
        return self.compile(tree, batch).call(tree, batch)

    def compile(self, tree: Any, batch: PackedBatch) -> CompiledStep:
        """The executable for these shapes: made now, or found. Arrays and ``ShapeDtypeStruct``s will do."""
        leaves, treedef = jax.tree.flatten(batch)
        signature = (treedef, *((leaf.shape, leaf.dtype) for leaf in leaves))
        if signature not in self.compiled:
            self.compiled[signature] = self._compile(tree, batch)
        return self.compiled[signature]

    def _compile(self, tree: Any, batch: PackedBatch) -> CompiledStep:
        start = time.perf_counter()
        tree = abstract(tree)
        shardings = jax.tree.map(lambda x, by_rule: x.sharding or by_rule, tree, param_shardings(tree, self.mesh))
        jitted = jax.jit(
            self._function,
            donate_argnums=(0,) if self._donate else (),
            out_shardings=(shardings, replicated(self.mesh)) if self._donate else replicated(self.mesh),
        )
        place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # noqa: E731
        rows = batch_sharding(self.mesh, leading=1)
        with jax.set_mesh(self.mesh):
            lowered = jitted.lower(jax.tree.map(place, tree, shardings), jax.tree.map(lambda x: place(x, rows), batch))
        call = lowered.compile(compiler_options=self._compiler_options or None)
        memory, cost = call.memory_analysis(), call.cost_analysis() or {}
        peak = 0
        if memory is not None:
            peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
            peak -= memory.alias_size_in_bytes
        return CompiledStep(call, time.perf_counter() - start, int(peak), float(cost.get("flops", 0.0)))

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling so far."""
        return sum(step.compile_seconds for step in self.compiled.values())

    @property
    def peak_memory_bytes(self) -> int:
        """Largest peak over the shapes seen so far, one device."""
        return max((step.peak_memory_bytes for step in self.compiled.values()), default=0)
