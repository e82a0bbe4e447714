"""Converting between all layouts: the same bits after a round trip, and a clear word where there is no way."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxrefine import cli
from jaxrefine.conversion.convert import convert
from jaxrefine.conversion.inspection import inspect
from jaxrefine.conversion.palm import load_palm
from jaxrefine.conversion.pretrained import load_config, load_pretrained, save_pretrained
from jaxrefine.conversion.scorer import load_scorer
from jaxrefine.conversion.torch_pickle import TorchFile
from jaxrefine.conversion.torch_writing import write_state_dict
from tests.conversion.cases import CASES
from tests.conversion.checkpoints import BFLOAT16, tensors_of, write_checkpoint
from tests.conversion.logits import decoder_logits, relative_error
from tests.conversion.test_btlm import equations
from tests.conversion.test_btlm import tensors_of as btlm_tensors
from tests.conversion.test_classification import classifier
from tests.conversion.test_consolidated import write_shards
from tests.conversion.test_families import assert_same_bits
from tests.conversion.test_palm import said, state_of

LLAMA, GPT2, PALM = "llama-2-gqa", "gpt2", "palm-qk-norm"


def hugging_face(directory: pathlib.Path, name: str = LLAMA, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    tensors = tensors_of(CASES[name].attributes, dtype)
    write_checkpoint(directory, CASES[name].attributes, tensors)
    return tensors


def palm(path: pathlib.Path, name: str = PALM) -> dict[str, np.ndarray]:
    state = state_of(CASES[name].attributes)
    write_state_dict(path, state.items())
    return state


def read_state(path: pathlib.Path) -> dict[str, np.ndarray]:
    file = TorchFile(path)
    return {name: file.read(name, (slice(None),) * len(one.shape)) for name, one in file.tensors.items()}


@pytest.mark.parametrize(("name", "dtype"), [(LLAMA, np.float32), (GPT2, BFLOAT16)])
def test_orbax_and_back_gives_the_same_tensors_and_config(tmp_path: pathlib.Path, name: str, dtype: Any) -> None:
    tensors = hugging_face(tmp_path / "a", name, dtype)
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    convert(tmp_path / "a", tmp_path / "b", to="orbax")
    convert(tmp_path / "b", tmp_path / "c")
    assert_same_bits(load_file(tmp_path / "c" / "model.safetensors"), tensors)
    assert load_config(tmp_path / "c") == load_config(tmp_path / "a")
    assert (tmp_path / "c" / "tokenizer.json").is_file()
    assert "in Orbax's layout" in inspect(tmp_path / "b")


def test_a_classifier_comes_back_from_orbax_with_head_and_labels(tmp_path: pathlib.Path) -> None:
    tensors = classifier(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", to="orbax")
    assert "with a head of 3 labels" in inspect(tmp_path / "b")
    convert(tmp_path / "b", tmp_path / "c")
    assert_same_bits(load_file(tmp_path / "c" / "model.safetensors"), tensors)
    labels = [json.loads((tmp_path / one / "config.json").read_text())["id2label"] for one in "ac"]
    assert labels[0] == labels[1]


@pytest.mark.parametrize("name", ["palm-2025", "palm-qk-norm", "palm-no-xpos"])
def test_a_palm_comes_back_from_orbax_bit_for_bit(tmp_path: pathlib.Path, name: str) -> None:
    """Tables are no weights and computed anew, so the second file is compared with the first that was written so."""
    attributes = CASES[name].attributes
    state = palm(tmp_path / "a.pt", name)
    convert(tmp_path / "a.pt", tmp_path / "b", to="orbax", stated=said(attributes))
    convert(tmp_path / "b", tmp_path / "c.pt", to="palm")
    found = read_state(tmp_path / "c.pt")
    weights = {key: value for key, value in state.items() if "rotary_emb" not in key}
    assert_same_bits({key: value for key, value in found.items() if key in weights}, weights)
    assert set(found) == set(state)
    convert(tmp_path / "c.pt", tmp_path / "d.pt", to="palm", stated=said(attributes))
    assert (tmp_path / "c.pt").read_bytes() == (tmp_path / "d.pt").read_bytes()
    assert load_palm(tmp_path / "c.pt", **said(attributes))[0] == load_config(tmp_path / "b")[0]


def test_what_no_palm_file_tells_is_said_on_the_command_line(tmp_path: pathlib.Path) -> None:
    palm(tmp_path / "a.pt")
    flags = ["--gamma-offset", "1", "--xpos-base=none", "--qk-scale", "8", "--max-positions=77"]
    assert cli.main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "b"), "--to", "orbax", *flags]) == 0
    config = load_config(tmp_path / "b")[0]
    assert config.norm_unit_offset
    assert (config.xpos_base, config.attention_scale, config.max_positions) == (None, 8.0, 77)
    assert "in PaLM's layout" in inspect(tmp_path / "a.pt")


def test_the_context_of_metas_files_may_be_said(tmp_path: pathlib.Path) -> None:
    write_shards(tmp_path, 1, 1)
    convert(tmp_path / "meta", tmp_path / "b", stated={"max_positions": 77})
    assert load_config(tmp_path / "b")[0].max_positions == 77


@pytest.mark.parametrize(("stored", "dtype"), [(np.float32, None), (BFLOAT16, "float32")])
def test_folded_scales_make_a_gpt2_of_a_maximal_update_cerebras_gpt(
    tmp_path: pathlib.Path, stored: Any, dtype: str | None
) -> None:
    """What is stored in bf16 is scaled in float32 where float32 is written, so nothing is rounded."""
    attributes = CASES["cerebras-gpt-mup"].attributes
    tensors = {name: value.astype(stored) for name, value in btlm_tensors(attributes).items()}
    write_checkpoint(tmp_path / "a", attributes, tensors)
    with pytest.raises(ValueError, match=r"a gpt2 .*; --fold-scales moves scales into the weights"):
        convert(tmp_path / "a", tmp_path / "b", family="gpt2")
    arguments = ["--family", "gpt2", "--fold-scales", *([] if dtype is None else ["--dtype", dtype])]
    assert cli.main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), *arguments]) == 0
    assert json.loads((tmp_path / "b" / "config.json").read_text())["architectures"] == ["GPT2LMHeadModel"]
    tokens = np.random.default_rng(0).integers(0, attributes["vocab_size"], (2, 9))
    ours = decoder_logits(*load_pretrained(tmp_path / "b"), tokens, np.ones_like(tokens, bool))
    assert relative_error(ours, equations(attributes, tensors, tokens)) <= 1e-4


def test_a_family_of_the_same_mechanisms_may_be_the_target(tmp_path: pathlib.Path) -> None:
    tensors = hugging_face(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", family="mistral")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["model_type"] == "mistral"
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors)
    assert load_config(tmp_path / "b")[0] == load_config(tmp_path / "a")[0]


def test_a_scorer_beside_a_model_goes_with_it(tmp_path: pathlib.Path) -> None:
    hugging_face(tmp_path / "a")
    config, params = load_pretrained(tmp_path / "a")
    scorer = {"kernel": np.ones((1, config.width), np.float32)}
    save_pretrained(tmp_path / "b", config, params, scorer=scorer, scorer_config={"name": "reward"})
    for to in ("hf", "orbax"):
        convert(tmp_path / "b", tmp_path / to, to=to)
        said, found = load_scorer(tmp_path / to)
        assert said == {"name": "reward"}
        np.testing.assert_array_equal(found["kernel"], scorer["kernel"])


REFUSED: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "a PaLM as Hugging Face's": (["p.pt", "b"], ("p.pt: transformers has no PaLM", "--to palm", "--to orbax")),
    "a LLaMA as a PaLM": (["a", "b.pt", "--to", "palm"], ("a llama has mechanisms", "--to hf, orbax")),
    "a PaLM as a LLaMA": (
        ["p.pt", "b", "--family", "llama"],
        ("p.pt: ", "TransformerConfig.norm is 'layer'; a LLaMA has 'rms'"),
    ),
    "a family that is none": (["a", "b", "--family", "lama"], ("unknown model_type 'lama'", "did you mean 'llama'")),
    "a PaLM in a directory": (["p.pt", "b", "--to", "palm"], ("ends in .pt",)),
    "a directory called as a file": (["a", "b.pt"], ("b.pt", "--to palm writes a .pt file")),
    "a file of weights": (
        ["a/model.safetensors", "b"],
        ("model.safetensors is a file", "allowed: a directory", ": a?"),
    ),
    "another target": (["a", "b", "--to", "pam"], ("'pam'", "did you mean 'palm'", "hf, orbax, palm")),
    "another dtype": (["a", "b", "--dtype", "float64"], ("'float64'", "Allowed: ")),
    "the source itself": (["a", "a"], ("is the source",)),
    "what holds the source": (["nest/a", "nest"], ("nest holds the source", "would be replaced")),
    "something stated that the files tell": (["a", "b", "--max-positions", "9"], ("max_positions is not stated",)),
    "something stated that no LLaMA has": (["meta", "b", "--qk-scale", "9"], ("qk_scale", "allowed: max_positions")),
    "no number": (["p.pt", "b", "--qk-scale", "x"], ("--qk-scale is 'x'; allowed: a number",)),
    "an offset of two": (["p.pt", "b", "--to", "orbax", "--gamma-offset", "2"], ("gamma_offset is 2", "0, 1")),
    "two layouts at once": (["both", "b"], ("both: models in Orbax and Hugging Face's layouts",)),
    "half an Orbax checkpoint": (["half", "b"], ("half", "params", "Orbax checkpoint")),
    "parameters of another config": (["other", "b"], ("other", "params", "the config wants")),
    "no file": (["q.pt", "b"], ("q.pt: no such",)),
    "no state dict": (["junk.pt", "b", "--to", "orbax"], ("junk.pt: not a complete zip file",)),
    "a decoder as an encoder": (["a", "b", "--family", "bert"], ("a: it is a decoder; a bert is an encoder",)),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """One directory of sources for all refusals, which must not change it."""
    room = tmp_path_factory.mktemp("models")
    hugging_face(room / "a")
    hugging_face(room / "nest" / "a")
    hugging_face(room / "nest")
    palm(room / "p.pt")
    write_shards(room, 1, 1)
    for name in ("both", "half", "other"):
        convert(room / "a", room / name, to="orbax")
    save_file({"x": np.ones(1)}, room / "both" / "model.safetensors")
    (room / "half" / "params" / "_METADATA").unlink()
    for file in (room / "half" / "params").glob("manifest.ocdbt"):
        file.write_bytes(b"")
    config = json.loads((room / "other" / "config.json").read_text())
    (room / "other" / "config.json").write_text(json.dumps(config | {"intermediate_size": 60}))
    (room / "junk.pt").write_bytes(b"PK not at all")
    return room


@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_is_refused_in_one_line_and_writes_nothing(
    models: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    arguments, parts = REFUSED[which]
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    monkeypatch.chdir(models)
    assert cli.main(["convert", *arguments]) == cli.USAGE_ERROR
    error = capsys.readouterr().err
    for part in parts:
        assert part in error
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before


@pytest.fixture
def no_file_beyond(request: pytest.FixtureRequest) -> Iterator[None]:
    """The system refuses to let files grow, as a full disk does."""
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's threads end after its loop
@pytest.mark.usefixtures("no_file_beyond")
@pytest.mark.parametrize(
    ("source", "destination", "to"), [("a", "b", "hf"), ("p.pt", "b.pt", "palm"), ("a", "b", "orbax")]
)
def test_a_disk_that_fills_while_it_writes_leaves_nothing_behind(
    models: pathlib.Path, capfd: pytest.CaptureFixture[str], source: str, destination: str, to: str
) -> None:
    before = sorted(os.listdir(models))
    code = cli.main(["convert", str(models / source), str(models / destination), "--to", to])
    said = capfd.readouterr().err
    assert code == cli.USAGE_ERROR, said
    assert "jaxrefine: " in said
    assert "Traceback" not in said.partition("jaxrefine: ")[2]
    assert sorted(os.listdir(models)) == before
