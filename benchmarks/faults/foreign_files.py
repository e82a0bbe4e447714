"""Files of a model, a prompt or a run as somebody who means harm would write them: one error, or read; never run."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.faults import hostile
from benchmarks.faults.hostile import CANARY
from benchmarks.faults.trial import Fault, Outcome
from jaxrefine import config as configs
from jaxrefine.conversion.peft import load_adapters
from jaxrefine.conversion.pretrained import load_config
from jaxrefine.conversion.sources import open_source
from jaxrefine.data.templates import load_templates
from jaxrefine.data.tokenizer import load_tokenizer, train_tokenizer
from jaxrefine.judging.prompts import load_prompt
from tests.conversion.checkpoints import VARIANTS, tensors_of, write_checkpoint, write_safetensors

GQA = VARIANTS["llama-2-gqa"]
_QUERY = "model.layers.0.self_attn.q_proj"
_ADAPTERS = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
Draw = np.random.Generator


Load = Callable[[pathlib.Path, str], object]
"""Writes something into a directory that is not there yet, where what runs leaves the canary, and reads it."""


def _open(path: pathlib.Path) -> None:
    with open_source(path):
        pass


def _checkpoint(directory: pathlib.Path, attributes: dict[str, Any] | None = None) -> pathlib.Path:
    return write_checkpoint(directory, GQA | (attributes or {}), tensors_of(GQA))


_AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModelForCausalLM": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
}
_DEEP = "[" * 100_000 + "]" * 100_000


def _tokenizer(directory: pathlib.Path) -> pathlib.Path:
    train_tokenizer(["She has 36 eggs."] * 3, vocab_size=300).save(directory)
    return directory


def _edit(path: pathlib.Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | fields))


def _remote_model(place: pathlib.Path, canary: str) -> object:
    _checkpoint(place, {"auto_map": _AUTO_MAP, "trust_remote_code": True})
    (place / "evil.py").write_text(hostile.module(canary))
    return _open(place)


def _remote_tokenizer(place: pathlib.Path, canary: str) -> object:
    _tokenizer(place)
    (place / "evil.py").write_text(hostile.module(canary))
    (place / "chat_template.jinja").write_text(hostile.template(canary))
    fields = {"auto_map": _AUTO_MAP, "tokenizer_class": "Tokenizer", "chat_template": hostile.template(canary)}
    _edit(place / "tokenizer_config.json", **fields, trust_remote_code=True)
    return load_tokenizer(place).encode("3 eggs")


def _remote_tokenizer_by_transformers(place: pathlib.Path, canary: str) -> object:
    """Without tokenizer.json, transformers reads the directory."""
    _remote_tokenizer(place, canary)
    content = json.loads((place / "tokenizer.json").read_text())["model"]
    (place / "tokenizer.json").unlink()
    (place / "vocab.json").write_text(json.dumps(content["vocab"]))
    (place / "merges.txt").write_text("\n".join(" ".join(pair) for pair in content["merges"]))
    _edit(place / "config.json", auto_map=_AUTO_MAP, model_type="evil", vocab_size=300)
    return load_tokenizer(place, eos="<|end|>", model_type="gpt2")


def _config(text: str) -> Load:
    """A model's config.json, its whole text replaced."""

    def load(place: pathlib.Path, canary: str) -> object:
        _checkpoint(place)
        (place / "config.json").write_text(text)
        return _open(place)

    return load


def _beside_tokenizer(name: str, text: str) -> Load:
    """A file that is read with a tokenizer, its whole text replaced."""

    def load(place: pathlib.Path, canary: str) -> object:
        _tokenizer(place)
        (place / name).write_text(text)
        return load_tokenizer(place)

    return load


def _shard_at(shard: Any) -> Load:
    def load(place: pathlib.Path, canary: str) -> object:
        write_checkpoint(place, GQA, tensors_of(GQA), num_shards=2)
        (place.parent / "outside.safetensors").write_bytes((sorted(place.glob("*.safetensors")))[0].read_bytes())
        [index] = place.glob("*.index.json")
        content = json.loads(index.read_text())
        content["weight_map"] = dict.fromkeys(content["weight_map"], shard)
        index.write_text(json.dumps(content))
        return _open(place)

    return load


def _header(header: bytes, length: int | None = None, rest: bytes = bytes(64)) -> Load:
    def load(place: pathlib.Path, canary: str) -> object:
        _checkpoint(place)
        start = (len(header) if length is None else length).to_bytes(8, "little")
        (place / "model.safetensors").write_bytes(start + header + rest)
        return _open(place)

    return load


def _link(place: pathlib.Path, canary: str) -> object:
    _checkpoint(place)
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to(pathlib.Path(__file__))
    return _open(place)


def _adapter_config(**fields: Any) -> Load:
    def load(place: pathlib.Path, canary: str) -> object:
        (_checkpoint(place) / "evil.py").write_text(hostile.module(canary))
        _edit(place / "adapter_config.json", **_ADAPTERS | fields)
        out, width = tensors_of(GQA)[f"{_QUERY}.weight"].shape
        pair = {"lora_A": np.ones((2, width), np.float32), "lora_B": np.ones((out, 2), np.float32)}
        found = {f"base_model.model.{_QUERY}.{part}.weight": value for part, value in pair.items()}
        write_safetensors(place / "adapter_model.safetensors", found)
        return load_adapters(place, load_config(place)[0], family="llama")

    return load


def _toml(text: str) -> Load:
    def load(place: pathlib.Path, canary: str) -> object:
        place.mkdir()
        (place / "text.toml").write_text(text)
        return load_prompt(place / "text.toml", "contextual")

    return load


def _templates(text: str) -> Load:
    def load(place: pathlib.Path, canary: str) -> object:
        place.mkdir()
        (place / "templates.toml").write_text(text)
        return load_templates(place / "templates.toml")

    return load


def _as_config(name: str) -> Load:
    """A run's config is a Python file, the user's own code; anything else is no config."""

    def load(place: pathlib.Path, canary: str) -> object:
        place.mkdir()
        (place / name).write_text(hostile.YAML.format(canary=canary))
        return configs.load(place / name)

    return load


_F32 = '"dtype": "F32", "shape": [2, 4], "data_offsets"'
REFUSED: Mapping[str, tuple[Load, str]] = {
    "config: nested": (_config(_DEEP), "config.json: JSON nested too deeply"),
    "config: NaN": (_config(json.dumps(GQA | {"rms_norm_eps": float("nan")})), "config.json: NaN"),
    "config: overflow": (_config(json.dumps(GQA)[:-1] + ', "initializer_range": 1e999}'), "config.json: 1e999"),
    "config: repeated key": (_config(json.dumps(GQA)[:-1] + ', "hidden_size": 64}'), "repeated key 'hidden_size'"),
    "config: an object for a number": (
        _config(json.dumps(GQA | {"hidden_size": {"$ref": "os.system"}})),
        "hidden_size is {'$ref': 'os.system'}; it must be an integer",
    ),
    "config: a huge number": (_config(json.dumps(GQA | {"num_hidden_layers": 10**30})), "must be below 2^31"),
    "config: a type that is a path": (_config(json.dumps(GQA | {"model_type": "../../evil"})), "unknown model_type"),
    "generation config: nested": (
        _beside_tokenizer("generation_config.json", _DEEP),
        "generation_config.json: JSON nested",
    ),
    "generation config: an object for an id": (
        _beside_tokenizer("generation_config.json", '{"eos_token_id": {"a": 1}}'),
        "generation_config.json",
    ),
    "tokenizer config: nested": (
        _beside_tokenizer("tokenizer_config.json", _DEEP),
        "tokenizer_config.json: JSON nested",
    ),
    "tokenizer: nested": (_beside_tokenizer("tokenizer.json", _DEEP), "tokenizer.json"),
    "tokenizer: an object": (_beside_tokenizer("tokenizer.json", '{"__class__": "os.system"}'), "tokenizer.json"),
    **{
        f"index: {name}": (_shard_at(shard), "model.safetensors.index.json: tensor ")
        for name, shard in {
            "up": "../outside.safetensors",
            "up and up": "../../../../../../etc/passwd",
            "from the root": "/etc/passwd",
            "down and up": "x/../../outside.safetensors",
            "another system's path": "..\\outside.safetensors",
            "the directory": ".",
            "the directory above": "..",
            "nothing": "",
            "null": None,
            "a zero byte": "model\0.safetensors",
        }.items()
    },
    **{
        f"header: {name}": (load, "model.safetensors: no complete safetensors file")
        for name, load in {
            "longer than the file": _header(b"{}", 2**40),
            "longer than anything": _header(b"{}", 2**64 - 1),
            "nested": _header(b'{"__metadata__": ' + _DEEP.encode() + b"}"),
            "overlapping": _header(f'{{"a": {{{_F32}: [0, 32]}}, "b": {{{_F32}: [16, 48]}}}}'.encode()),
            "a hole": _header(f'{{"a": {{{_F32}: [0, 32]}}, "b": {{{_F32}: [40, 72]}}}}'.encode(), rest=bytes(72)),
            "outside": _header(f'{{"a": {{{_F32}: [0, 4096]}}}}'.encode()),
            "negative": _header(f'{{"a": {{{_F32}: [-32, 0]}}}}'.encode()),
            "a huge shape": _header(
                b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 64]}}'
            ),
            "a link to another file": _link,
        }.items()
    },
    "adapters: an expression": (_adapter_config(alpha_pattern={"(a+)+$": 4}), "adapter_config.json: alpha_pattern"),
    "adapters: an object for a number": (_adapter_config(lora_alpha={"a": 1}), "adapter_config.json"),
    "adapters: a text for a number": (_adapter_config(r="2; import os"), "adapter_config.json"),
    **{
        f"prompt: {name}": (_toml(f'user = "{field}"'), "a field is a plain name")
        for name, field in {
            "an attribute": "{response.__class__.__init__.__globals__}",
            "an item": "{response[0]}",
            "a width": "{response:>9999999999}",
            "a conversion": "{response!r}",
            "a place": "{0}",
        }.items()
    },
    "template: an attribute": (_templates('question = "{question.__class__.__mro__}"'), "a field is a plain name"),
    "template: a width": (_templates('question = "{question:>9999999999}"'), "a field is a plain name"),
    "a run's config in YAML": (_as_config("config.yaml"), "config.yaml: not a Python file"),
    "a run's config in JSON": (_as_config("config.json"), "config.json: not a Python file"),
}
"""By name: what must end as one error that names the directory, and what else it says."""
HARMLESS: Mapping[str, Load] = {
    "config: code beside it": _remote_model,
    "tokenizer: code and templates beside it": _remote_tokenizer,
    "tokenizer: the same, read by transformers": _remote_tokenizer_by_transformers,
    "adapters: a class to import": _adapter_config(
        auto_mapping={"parent_library": "evil", "base_model_class": "Model"}
    ),
    "adapters: a path": _adapter_config(base_model_name_or_path="../../evil"),
}
"""By name: what may be read or refused, but never run."""


def _configs(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    cases = [*REFUSED, *HARMLESS]
    wrong = []
    canary = directory / CANARY
    for index in draw.permutation(len(cases)):
        place, said = directory / f"case{index}", "read"
        load, part = REFUSED.get(cases[index]) or (HARMLESS[cases[index]], "")
        try:
            load(place, str(canary))
        except (ValueError, FileNotFoundError) as error:
            said = str(error)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            wrong.append(f"{cases[index]}: {said[:200]}")
        if cases[index] in REFUSED and not (str(place) in said and part in said):
            wrong.append(f"{cases[index]}: {said[:200]}")
        if canary.exists():
            wrong.append(f"{cases[index]}: was run")
            canary.unlink()
    imported = {name for name in sys.modules if name.rpartition(".")[2] == "evil"}
    if imported:
        wrong.append(f"imported: {imported}")
    return Outcome(passed=not wrong, detail="; ".join(wrong), figures={"cases": float(len(cases))})


FAULTS = (
    Fault(
        name="S3",
        title=f"{len(REFUSED) + len(HARMLESS)} hostile files: configs, tokenizers with code and templates, indices and "
        "headers, adapters, prompts, YAML",
        criterion="one error that names the file, or read; nothing imported, nothing run, no file of another directory",
        trial=_configs,
        num_trials=100,
        num_fast=1,
    ),
)
