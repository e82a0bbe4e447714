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
from jaxrefine.training.state import TrainState, abstract


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


def _apart(tree: Any) -> tuple[Any, Any]:
    """A tree without what it holds frozen, and that: it is never donated, so it is never copied and never lost."""
    return (dataclasses.replace(tree, frozen={}), tree.frozen) if isinstance(tree, TrainState) else (tree, {})


def _together(tree: Any, frozen: Any) -> Any:
    return dataclasses.replace(tree, frozen=frozen) if isinstance(tree, TrainState) else tree


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
        changing, frozen = _apart(tree)
        result = self.compile(tree, batch).call(changing, frozen, batch)
        return (_together(result[0], frozen), *result[1:]) if self._donate else result

    def compile(
        self, tree: Any, batch: PackedBatch, *, compiler_options: Mapping[str, Any] | None = None
    ) -> CompiledStep:
        """The executable for these shapes: made now, or found. Arrays and ``ShapeDtypeStruct``s will do.

        Args:
            tree: what the function reads first.
            batch: what it reads second.
            compiler_options: for making it, beside the step's own.
        """
        leaves, treedef = jax.tree.flatten(batch)
        signature = (treedef, *((leaf.shape, leaf.dtype) for leaf in leaves))
        if signature not in self.compiled:
            self.compiled[signature] = self._compile(tree, batch, compiler_options or {})
        return self.compiled[signature]

    def shapes(self, tree: Any, batch: Any) -> Any:
        """The shapes of the function's result, without compiling or computing it."""
        with jax.set_mesh(self.mesh):
            return jax.eval_shape(self._function, tree, batch)

    def _compile(self, tree: Any, batch: PackedBatch, options: Mapping[str, Any]) -> CompiledStep:
        start = time.perf_counter()
        tree = abstract(tree)
        place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # noqa: E731
        by_rule = param_shardings(tree, self.mesh)
        placed = jax.tree.map(lambda x, sharding: place(x, x.sharding or sharding), tree, by_rule)
        changing, frozen = _apart(placed)
        shardings = jax.tree.map(lambda x: x.sharding, changing)

        def function(changing: Any, frozen: Any, batch: PackedBatch) -> Any:
            result = self._function(_together(changing, frozen), batch)
            return (_apart(result[0])[0], *result[1:]) if self._donate else result

        jitted = jax.jit(
            function,
            donate_argnums=(0,) if self._donate else (),
            out_shardings=(shardings, replicated(self.mesh)) if self._donate else replicated(self.mesh),
        )
        rows = batch_sharding(self.mesh, leading=1)
        with jax.set_mesh(self.mesh):
            lowered = jitted.lower(changing, frozen, jax.tree.map(lambda x: place(x, rows), batch))
        call = lowered.compile(compiler_options={**self._compiler_options, **options} or None)
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
