"""What a model directory holds, said in a few lines without reading a weight."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import textwrap

import jax.numpy as jnp

from jaxrefine.conversion.sources import Source, open_source

_DTYPES = ("float32", "bfloat16", "int8")


def inspect(directory: pathlib.Path) -> str:
    """Family, mechanisms, parameters and memory of a model directory, or of a PaLM's ``.pt`` file.

    Raises:
      FileNotFoundError: no model there.
      ValueError: a config or tensors that do not belong together; names what and where.
    """
    with open_source(directory) as source:
        return describe_source(source, directory)


def describe_source(source: Source, directory: pathlib.Path) -> str:
    """The same of an open model."""
    count = sum(leaf.size for leaf in source.leaves.values())
    stored: collections.Counter[str] = collections.Counter()
    for leaf in source.leaves.values():
        stored[leaf.dtype.name] += leaf.size * leaf.dtype.itemsize
    kind = type(source.config).__name__.removesuffix("Config").replace("Transformer", "Decoder").lower()
    head = f", with a head of {source.leaves['scorer/kernel'].shape[0]} labels" if source.classifier else ""
    lines = [
        str(directory),
        f"family      {source.family.model_type} ({kind}{head}), in {source.layout}'s layout",
        f"parameters  {count:,}",
        "stored as   " + ", ".join(f"{name}: {size(amount)}" for name, amount in stored.most_common()),
        "memory      " + ", ".join(f"{name}: {size(count * jnp.dtype(name).itemsize)}" for name in _DTYPES),
        "mechanisms",
        *(f"  {name} = {value!r}" for name, value in mechanisms(source).items()),
        *textwrap.wrap(f"as by default: {_usual(source)}", 118, initial_indent="  ", subsequent_indent="    "),
    ]
    return "\n".join(lines)


def mechanisms(source: Source) -> dict[str, object]:
    """The fields of the config: sizes, which have no default, and what differs from a field's default."""
    fields = dataclasses.fields(source.config)
    return {
        field.name: getattr(source.config, field.name)
        for field in fields
        if field.default is dataclasses.MISSING or getattr(source.config, field.name) != field.default
    }


def _usual(source: Source) -> str:
    """The other fields."""
    shown = mechanisms(source)
    fields = [field for field in dataclasses.fields(source.config) if field.name not in shown]
    return ", ".join(f"{field.name}={field.default!r}" for field in fields)


def size(amount: int) -> str:
    """Bytes for people, in powers of ten.

    >>> size(13_476_831_232)
    '13.48 GB'
    """
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.4g} {unit}"
        amount = amount / 1000  # type: ignore[assignment]
    return f"{amount:.2f} GB"
