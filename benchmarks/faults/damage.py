"""T5, T6, T12: checkpoints and model directories that are not what was written, or not what the run needs."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.faults.runs import MODEL, digest, one_device
from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.artefacts.integrity import INTEGRITY, DamagedError
from jaxrefine.conversion.apply import abstract_params
from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.training.checkpoints import CheckpointConfig, Checkpoints, DamagedCheckpointError
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.state import TrainState, abstract_state, init_state

_STEPS = (1, 2, 3)
_CONFIG = CheckpointConfig(keep=len(_STEPS))


def fresh_params(seed: int = 0) -> Any:
    """Of ``MODEL``, drawn by NumPy."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), abstract_params(MODEL))


def _optimizer() -> Any:
    return make_optimizer(OptimizerConfig(), 10)


def like(**options: Any) -> TrainState:
    """What the checkpoints are restored into."""
    return abstract_state({"model": fresh_params()}, _optimizer(), mesh=one_device(), **options)


@dataclasses.dataclass(frozen=True)
class Saved:
    """Checkpoints of three steps and an exported model, to be copied and damaged."""

    directory: pathlib.Path
    states: dict[int, str]
    """{step: digest of what was saved}."""
    files: tuple[str, ...]
    """Of the newest step, its manifest included, relative to ``directory``."""
    model: pathlib.Path
    turns: Iterator[int]


def saved(directory: pathlib.Path) -> Saved:
    """Saves them."""
    states = {}
    checkpoints = Checkpoints(directory / "run" / "checkpoints", _CONFIG)
    for step in _STEPS:
        state = init_state({"model": fresh_params(step)}, _optimizer(), jax.random.key(step), mesh=one_device())
        state = state.replace(step=state.step + step)
        states[step] = digest(state)
        checkpoints.save(state, {"position": step})
    checkpoints.close()
    step = directory / "run" / "checkpoints" / str(_STEPS[-1])
    files = [path for path in sorted(step.rglob("*")) if path.is_file()]
    files.append(directory / "run" / "checkpoints-integrity" / f"{_STEPS[-1]}.json")
    model = save_pretrained(directory / "model", MODEL, fresh_params(), max_shard_bytes=8_000)
    names = tuple(str(path.relative_to(directory / "run")) for path in files)
    return Saved(directory / "run", states, names, model, itertools.count())


def flip(path: pathlib.Path, generator: np.random.Generator) -> None:
    """One bit, anywhere."""
    content = bytearray(path.read_bytes())
    bit = int(generator.integers(8 * len(content)))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def _truncate(path: pathlib.Path, generator: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(generator.integers(1, len(content)))])


def _empty(path: pathlib.Path, generator: np.random.Generator) -> None:
    path.write_bytes(b"")


def _delete(path: pathlib.Path, generator: np.random.Generator) -> None:
    path.unlink()


_OTHERWISE: tuple[Callable[[pathlib.Path, np.random.Generator], None], ...] = (_truncate, _delete, _empty)


class _Heard(logging.Handler):
    """What the run says of it."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


def _falls_back(shared: Saved, place: pathlib.Path, name: str, damage: Callable[[pathlib.Path], None]) -> str:
    """What is wrong with how a damage to one file of the newest step is met; "" where nothing is."""
    run = place / "run"
    shutil.copytree(shared.directory, run)
    damage(run / name)
    heard, logger = _Heard(), logging.getLogger("jaxrefine.training.checkpoints")
    logger.addHandler(heard)
    try:
        checkpoints = Checkpoints(run / "checkpoints", _CONFIG)
        restored = checkpoints.restore(like())
        checkpoints.close()
    finally:
        logger.removeHandler(heard)
    good = _STEPS[-2]
    if restored is None:
        return "nothing was restored"
    state, position = restored
    if position != {"position": good} or digest(state) != shared.states[good]:
        return f"step {int(state.step)} was restored, not the whole one of step {good}"
    if not (run / "checkpoints-damaged" / str(_STEPS[-1])).is_dir():
        return "the damaged step was not set aside"
    inside = pathlib.Path(*pathlib.Path(name).parts[2:]) if name.startswith("checkpoints/") else pathlib.Path(name).name
    return "" if str(inside) in heard.text else f"the file is not named in: {heard.text!r}"


def _bit_flipped(shared: Saved, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    name = shared.files[int(generator.integers(len(shared.files)))]
    problem = _falls_back(shared, place, name, lambda path: flip(path, generator))
    return Outcome(passed=not problem, detail=f"{name}: {problem}")


def _file_spoiled(shared: Saved, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    index = next(shared.turns)
    name = shared.files[index % len(shared.files)]
    spoil = _OTHERWISE[(index // len(shared.files) + index) % len(_OTHERWISE)]
    problem = _falls_back(shared, place, name, lambda path: spoil(path, generator))
    return Outcome(passed=not problem, detail=f"{spoil.__name__} {name}: {problem}")


def _model_damaged(shared: Saved, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    model = shutil.copytree(shared.model, place / "model")
    files = sorted(path for path in model.iterdir())
    path = files[int(generator.integers(len(files)))]
    damage = (flip, *_OTHERWISE)[int(generator.integers(4))]
    # Without its manifest a directory is anybody's: nothing to compare with.
    if path.name == INTEGRITY and damage is _delete:
        damage = _empty
    damage(path, generator)
    detail = f"{damage.__name__} {path.name}"
    try:
        load_pretrained(model)
    except (DamagedError, ValueError, FileNotFoundError) as error:
        named = path.name in str(error) or path.name == "config.json"
        return Outcome(passed=named, detail=f"{detail}: not named in {error}")
    return Outcome(passed=False, detail=f"{detail}: loaded")


def _rename(tensors: dict[str, Any], name: str) -> str:
    tensors[name + "_"] = tensors.pop(name)
    return name + "_"


def _reshape(tensors: dict[str, Any], name: str) -> str:
    tensors[name] = np.ascontiguousarray(tensors[name][..., :-1])
    return str(list(tensors[name].shape)).strip("[]")


def _retype(tensors: dict[str, Any], name: str) -> str:
    tensors[name] = tensors[name].astype(np.int32)
    return "int32"


def _miss(tensors: dict[str, Any], name: str) -> str:
    del tensors[name]
    return name


def _add(tensors: dict[str, Any], name: str) -> str:
    tensors["model.layers.0.self_attn.extra.weight"] = np.ones(3, np.float32)
    return "extra"


_WRONGS = (_rename, _reshape, _retype, _miss, _add)


def _wrong_model(shared: Saved, generator: np.random.Generator, place: pathlib.Path) -> tuple[str, str]:
    """Weights that fit no config, in a directory that somebody else wrote (it has no manifest)."""
    model = save_pretrained(place / "model", MODEL, fresh_params())
    (model / INTEGRITY).unlink()
    tensors = load_file(model / "model.safetensors")
    name = sorted(tensors)[int(generator.integers(len(tensors)))]
    wrong = _WRONGS[int(generator.integers(len(_WRONGS)))]
    said = wrong(tensors, name)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    detail = f"model directory, {wrong.__name__} {name}"
    try:
        load_pretrained(model)
    except ValueError as error:
        text = str(error)
        return detail, "" if said in text and (wrong is _add or name in text) else f"said only: {text}"
    return detail, "loaded"


def _wrong_checkpoint(shared: Saved, generator: np.random.Generator, place: pathlib.Path) -> tuple[str, str]:
    """A run whose parameters are not those of the checkpoint."""
    target = like()
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(target.params)]
    path = paths[int(generator.integers(len(paths)))]
    *above, last = (key.key for key in path)
    params = jax.tree.map(lambda x: x, target.params)
    parent = params
    for key in above:
        parent = parent[key]
    leaf = parent[last]
    name = "/".join(("params", *above, last))
    kind = ("shape", "dtype", "renamed", "missing", "extra")[int(generator.integers(5))]
    said = [name]
    if kind == "shape":
        parent[last] = leaf.update(shape=(*leaf.shape[:-1], leaf.shape[-1] + 1))
        said += [str(list(leaf.shape)), str(list(parent[last].shape))]
    elif kind == "dtype":
        parent[last] = leaf.update(dtype=jnp.bfloat16)
        said += ["float32", "bfloat16"]
    elif kind == "renamed":
        parent[last + "_"] = parent.pop(last)
        said += [f"{name}_ is missing", f"{name} is left over"]
    elif kind == "missing":  # in the run: the checkpoint has it besides
        del parent[last]
        said += ["is left over"]
    else:
        parent["more"] = leaf
        said = ["more is missing"]
    run = place / "run"
    shutil.copytree(shared.directory, run)
    checkpoints = Checkpoints(run / "checkpoints", _CONFIG)
    detail = f"checkpoint, {kind} {name}"
    try:
        checkpoints.restore(target.replace(params=params))
    except ValueError as error:
        missing = [part for part in said if part not in str(error)]
        problem = f"{missing} not in: {error}" if missing else ""
    else:
        problem = "restored"
    untouched = checkpoints.steps() == list(_STEPS)  # it is no damage: nothing may be set aside
    checkpoints.close()
    return detail, problem or ("" if untouched else "a whole step was set aside")


def _wrong_weights(shared: Saved, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    case = _wrong_checkpoint if next(shared.turns) % 2 else _wrong_model
    detail, problem = case(shared, generator, place)
    return Outcome(passed=not problem, detail=f"{detail}: {problem}")


def _all_damaged(shared: Saved, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    """Nothing whole is left: the run must not begin again in silence."""
    run = place / "run"
    shutil.copytree(shared.directory, run)
    for step in _STEPS:
        files = [path for path in sorted((run / "checkpoints" / str(step)).rglob("*")) if path.is_file()]
        flip(files[int(generator.integers(len(files)))], generator)
    try:
        Checkpoints(run / "checkpoints", _CONFIG).restore(like())
    except DamagedCheckpointError as error:
        return Outcome(passed=str(list(_STEPS)) in str(error), detail=str(error))
    return Outcome(passed=False, detail="restored, or begun again")


FAULTS = (
    Fault(
        name="T5",
        title="one bit flipped in any file of the newest checkpoint, its manifest included",
        criterion="noticed, the file named, the step set aside, the one before it restored bit for bit",
        trial=_bit_flipped,
        prepare=saved,
        num_trials=1_000,
        num_fast=8,
        baseline="measured (Orbax 0.12, array files): 0 of 231 noticed; measured (safetensors 0.8): a flipped "
        "data byte loads",
    ),
    Fault(
        name="T5-all",
        title="one bit flipped in every checkpoint of a run",
        criterion="an error that names the steps: no beginning again in silence",
        trial=_all_damaged,
        prepare=saved,
        num_trials=100,
        num_fast=1,
    ),
    Fault(
        name="T6",
        title="each file of the newest checkpoint in turn cut short, deleted, emptied",
        criterion="noticed, the file named, the step set aside, the one before it restored bit for bit",
        trial=_file_spoiled,
        prepare=saved,
        num_trials=300,
        num_fast=8,
        baseline="measured (Orbax 0.12): raises without falling back; a deleted commit_success.txt goes unnoticed",
    ),
    Fault(
        name="T6-model",
        title="any file of an exported model directory with a bit flipped, cut short, deleted or emptied",
        criterion="load_pretrained refuses it and names the file",
        trial=_model_damaged,
        prepare=saved,
        num_trials=500,
        num_fast=5,
        baseline="measured (safetensors 0.8): lengths are checked, a flipped data byte loads; published: vLLM#53537",
    ),
    Fault(
        name="T12",
        title="weights of a wrong shape or type, renamed, missing or left over, in model directories and checkpoints",
        criterion="refused, with the parameter's path and, for shapes, both; no whole checkpoint is set aside",
        trial=_wrong_weights,
        prepare=saved,
        num_trials=300,
        num_fast=8,
        baseline="measured (Orbax 0.12): float32 into bfloat16 is cast in silence; NumPy templates of another shape "
        "come back with the stored shape",
    ),
)
