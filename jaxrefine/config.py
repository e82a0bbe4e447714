"""Configs: load ``get_config()`` from a Python file, override it by dotted path, print it, digest it.

A config is a tree of frozen keyword-only dataclasses that live beside what they configure; this module knows none
of them. It also holds the one function for "did you mean".
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import enum
import hashlib
import importlib.util
import io
import itertools
import json
import math
import os
import pathlib
import re
import sys
import traceback
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

C = TypeVar("C")

_PACKAGE = pathlib.Path(__file__).resolve().parent


class ConfigError(ValueError):
    """A config, a flag or a value that is not there, or not allowed; the message says what is."""


def unknown_name(given: object, allowed: Iterable[object], what: str, *, listed: Iterable[str] | None = None) -> str:
    """The message for a name that is not among those allowed: what was given, the nearest, and all of them.

    Args:
      given: the name that is not there.
      allowed: the names that are.
      what: what they are names of.
      listed: what to say is allowed, where that is shorter.

    >>> print(unknown_name("adam", ["sgd", "adamw"], "optimizer"))
    unknown optimizer 'adam'; did you mean 'adamw'? Allowed: adamw, sgd
    """
    names = sorted({str(name) for name in allowed})
    nearest = difflib.get_close_matches(str(given), names, n=1, cutoff=0.4)
    if not nearest:  # a part of a name, or another spelling of it
        lowered = str(given).lower()
        nearest = [name for name in names if lowered and (lowered in name.lower() or name.lower() in lowered)][:1]
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {what} {given!r}{hint} Allowed: {', '.join(names if listed is None else listed) or 'none'}"


def config_directory() -> pathlib.Path:
    """Where the shipped configs are: inside an installed package, or beside an editable checkout of it.

    Raises:
      ConfigError: when neither place has them.
    """
    for directory in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if directory.is_dir():
            return directory
    raise ConfigError(f"no shipped configs in {_PACKAGE / 'configs'} nor in {_PACKAGE.parent / 'configs'}")


def shipped() -> dict[str, pathlib.Path]:
    """The shipped configs: ``{"system/experiment": file}``, sorted by name."""
    directory = config_directory()
    files = sorted(file for file in directory.rglob("*.py") if not file.name.startswith("_"))
    return {file.relative_to(directory).with_suffix("").as_posix(): file for file in files}


def find(name_or_path: str | os.PathLike[str]) -> pathlib.Path:
    """The file of a config: a path, else a shipped name: ``loss_variants/tiny`` or ``configs/loss_variants/tiny.py``.

    Raises:
      ConfigError: names what was given, the nearest shipped config and all of them.
    """
    path = pathlib.Path(name_or_path)
    if path.is_file():
        return path.resolve()
    name = path.as_posix().removesuffix(".py").removeprefix("./").removeprefix("configs/").strip("/")
    configs = shipped()
    if name in configs:
        return configs[name]
    raise ConfigError(unknown_name(str(name_or_path), configs, "config (no such file, no such shipped config)"))


def name_of(file: pathlib.Path) -> str:
    """What a config is called: its shipped name, or the stem of a file of one's own."""
    for name, known in shipped().items():
        if known.resolve() == file.resolve():
            return name
    return file.stem


def load(name_or_path: str | os.PathLike[str]) -> Any:
    """The config that ``get_config()`` of a file returns.

    Args:
      name_or_path: a Python file, or the name of a shipped config such as ``loss_variants/tiny``.
    Returns:
      A frozen dataclass. What can be run has a method ``stages()``.
    Raises:
      ConfigError: no such config (with the nearest), or its file fails (with file and line).
    """
    file = find(name_or_path)
    module = _execute(file)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise ConfigError(f"{file}: a config file defines get_config(), this one does not")
    try:
        config = get_config()
    except Exception as error:
        raise ConfigError(_located(file, error)) from error
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ConfigError(f"{file}: get_config() returns a dataclass, not {type(config).__name__}")
    return config


def header(name_or_path: str | os.PathLike[str]) -> str:
    """The docstring of a config file: what it does, the command, the expected result, the cost."""
    return (ast.get_docstring(ast.parse(find(name_or_path).read_bytes())) or "").strip()


def _execute(file: pathlib.Path) -> types.ModuleType:
    name = f"jaxrefine_config_{hashlib.blake2b(str(file).encode(), digest_size=8).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses defined in the file look their annotations up here
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(_located(file, error)) from error
    return module


def _located(file: pathlib.Path, error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"{file}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{file}:{frames[-1].lineno if frames else '?'}: {type(error).__name__}: {error}"


def flatten(config: Any) -> dict[str, Any]:
    """The leaves of a config by dotted path.

    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Optimizer:
    ...     learning_rate: float = 0.1
    >>> flatten({"optimizer": Optimizer(), "seeds": (0, 1)})
    {'optimizer.learning_rate': 0.1, 'seeds': (0, 1)}
    """
    return dict(_leaves(config, ""))


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = _children(node)
    if children is None:
        yield path, node
        return
    for name, child in children:
        yield from _leaves(child, f"{path}.{name}" if path else name)


def _children(node: Any) -> list[tuple[str, Any]] | None:
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node)]
    if isinstance(node, Mapping) and node:
        return [(str(name), child) for name, child in node.items()]
    if isinstance(node, (tuple, list)) and any(_children(child) is not None for child in node):
        return [(str(index), child) for index, child in enumerate(node)]
    return None


def show(config: Any) -> str:
    """One line a leaf, ``dotted.path = value``, in the order of the fields.

    >>> print(show({"steps": 3, "optimizer": {"name": "sgd"}}))
    steps = 3
    optimizer.name = 'sgd'
    """
    return "\n".join(f"{path} = {value!r}" for path, value in flatten(config).items())


def override(config: C, argv: Sequence[str], *, prog: str = "jaxrefine run CONFIG") -> C:
    """The config with some of its leaves replaced: ``["--optimizer.learning-rate", "2e-5"]``; hyphens or underscores.

    Args:
      config: a dataclass, the defaults.
      argv: flags and values; ``--help`` lists them with types, defaults and help, and exits.
      prog: what the help calls the command.
    Raises:
      ConfigError: an unknown flag or choice (with the nearest and all allowed ones), or a value that does not parse.
    """
    if not argv:
        return config
    import tyro  # 0.2 s, needed only when something is overridden

    _check_choices(config, argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            changed, unknown = tyro.cli(
                type(config),
                default=config,
                args=list(argv),
                prog=prog,
                config=(tyro.conf.AvoidSubcommands,),
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError("\n" + said.getvalue().rstrip()) from None
    if unknown:
        flags = [f"--{path.replace('_', '-')}" for path in flatten(config)]
        given = unknown[0].split("=")[0]
        if given.startswith("--"):
            listed = dict.fromkeys(re.sub(r"\.\d+\.", ".N.", flag) for flag in flags)
            raise ConfigError(unknown_name(given.replace("_", "-"), flags, "flag", listed=listed))
        before = argv[argv.index(unknown[0]) - 1].replace("_", "-") if unknown[0] in argv[1:] else ""
        if isinstance(flatten(config).get(before.removeprefix("--").replace("-", "_")), bool):
            stem, _, name = before.removeprefix("--").rpartition(".")
            off = f"--{stem}.no-{name}" if stem else f"--no-{name}"
            raise ConfigError(f"unexpected argument {given!r}: {before} is a switch, no value; {off} turns it off")
        raise ConfigError(f"unexpected argument {given!r}: every override is a flag, --dotted.path value")
    return changed


def _check_choices(config: Any, argv: Sequence[str]) -> None:
    """Refuses a value outside a ``Literal``; tyro would, but names no nearest one."""
    for flag, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        if not flag.startswith("--"):
            continue
        path, equals, value = flag[2:].partition("=")
        value = value if equals else following
        choices = _choices(config, path.replace("-", "_").split("."))
        if choices and value not in choices:
            raise ConfigError(unknown_name(value, choices, f"value of --{path}"))


def _choices(node: Any, path: Sequence[str]) -> list[str]:
    """The strings that a leaf may be, where its annotation is a ``Literal`` (or an optional one); else none."""
    name, *rest = path
    if not rest and dataclasses.is_dataclass(node):
        annotation = typing.get_type_hints(type(node)).get(name)
        options = [annotation, *typing.get_args(annotation)] if _is_union(annotation) else [annotation]
        literals = [option for option in options if typing.get_origin(option) is typing.Literal]
        if not literals:
            return []
        optional = ["None"] if type(None) in options else []
        return [str(value) for literal in literals for value in typing.get_args(literal)] + optional
    children = dict(_children(node) or [])
    return _choices(children[name], rest) if rest and name in children else []


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def describe(obj: Any, path: str = "") -> Any:
    """The same content as plain JSON: dataclasses become dicts that also name their class, arrays their digest.

    Raises:
      TypeError: a lambda or another object without stable content, with its dotted path.
    """
    if obj is None or (isinstance(obj, (bool, int, str)) and not isinstance(obj, enum.Enum)):
        return obj
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else {"float": str(obj)}
    if isinstance(obj, enum.Enum):
        return f"{type(obj).__name__}.{obj.name}"
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        fields = {field.name: getattr(obj, field.name) for field in dataclasses.fields(obj)}
        return {"class": type(obj).__qualname__} | {
            name: describe(value, f"{path}.{name}") for name, value in fields.items()
        }
    if isinstance(obj, Mapping):
        return {str(name): describe(value, f"{path}.{name}") for name, value in obj.items()}
    if isinstance(obj, (set, frozenset)):
        return sorted((describe(value, path) for value in obj), key=str)
    if isinstance(obj, (tuple, list)):
        return [describe(value, f"{path}.{index}") for index, value in enumerate(obj)]
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if isinstance(obj, bytes):
        return {"bytes": obj.hex()}
    if hasattr(obj, "tobytes") and not isinstance(obj, type):  # an array, without importing what made it
        content = hashlib.blake2b(obj.tobytes(), digest_size=16).hexdigest()
        return {"dtype": str(obj.dtype), "shape": list(obj.shape), "content": content}
    name = getattr(obj, "__qualname__", None)
    if name is not None and "<" not in name:
        return f"{obj.__module__}.{name}"
    if type(obj).__module__.partition(".")[0] in ("numpy", "jax", "ml_dtypes"):  # dtypes
        return str(obj)
    raise TypeError(f"{path.lstrip('.') or 'object'}: {obj!r} has no content that could be compared or digested")


def digest(obj: Any) -> str:
    """A stable hash of content: 32 hexadecimal digits, equal in every process and on every machine.

    >>> digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    True
    """
    content = json.dumps(describe(obj), sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


ABSENT = "absent"


def changes(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Leaves in which two descriptions differ: ``(dotted path, old, new)``; ``"absent"`` where one has none.

    >>> changes({"steps": 1, "seeds": [0]}, {"steps": 2, "seeds": [0], "name": "x"})
    [('steps', 1, 2), ('name', 'absent', 'x')]
    """
    before, after = flatten(describe(old)), flatten(describe(new))
    paths = [*before, *(path for path in after if path not in before)]
    pairs = [(path, before.get(path, ABSENT), after.get(path, ABSENT)) for path in paths]
    return [(path, was, now) for path, was, now in pairs if was != now]
