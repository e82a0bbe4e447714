"""Decoders with a classification or reward head: transformers' scores, and the same bits on the way back."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.classification import load_classifier, save_classifier
from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.models.decoder import Decoder
from jaxrefine.sharding import MeshConfig, make_mesh
from tests.conversion.cases import CASES
from tests.conversion.checkpoints import tensors_of, wave, write_checkpoint
from tests.conversion.make_reference import tokens_of

TOLERANCE = 1e-4
UNTIED, TIED = "llama-2-gqa", "gpt2"


def classifier(directory: pathlib.Path, name: str = UNTIED, num_labels: int = 3, **more: Any) -> dict[str, np.ndarray]:
    """Writes a model as transformers would, and returns its tensors."""
    attributes = CASES[name].attributes
    model = {"llama": "Llama", "gpt2": "GPT2"}[attributes["model_type"]]
    tensors = {key: value for key, value in tensors_of(attributes).items() if key != "lm_head.weight"}
    tensors["score.weight"] = wave(
        "score.weight", (num_labels, attributes.get("hidden_size", attributes.get("n_embd")))
    )
    labels = {str(i): f"model {i}" for i in range(num_labels)}
    attributes = attributes | {"architectures": [f"{model}ForSequenceClassification"], "id2label": labels} | more
    write_checkpoint(directory, attributes, tensors)
    return tensors


@pytest.mark.parametrize("name", [UNTIED, TIED])
def test_weights_and_labels_come_back(tmp_path: pathlib.Path, name: str) -> None:
    tensors = classifier(tmp_path / "a", name)
    config, params, head = load_classifier(tmp_path / "a")
    assert head["kernel"].shape == (3, config.width)
    assert "head" not in params
    family = CASES[name].attributes["model_type"]
    save_classifier(tmp_path / "b", config, params, head, family=family, tokenizer_dir=tmp_path / "a")
    written = load_file(tmp_path / "b" / "model.safetensors")
    assert {key: value.tobytes() for key, value in written.items()} == {
        key: value.tobytes() for key, value in tensors.items()
    }
    said, given = (json.loads((tmp_path / one / "config.json").read_text()) for one in ("b", "a"))
    for key in ("architectures", "id2label", "model_type"):
        assert said[key] == given[key]
    assert load_classifier(tmp_path / "b")[0] == config


def test_a_language_model_becomes_a_reward_model_without_its_output_map(tmp_path: pathlib.Path) -> None:
    attributes = CASES[UNTIED].attributes
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", attributes, tensors_of(attributes)))
    head = {"kernel": jnp.ones((1, config.width))}
    save_classifier(tmp_path / "b", config, params, head, family="llama", labels=["reward"])
    _, body, read = load_classifier(tmp_path / "b")
    assert set(body) == set(params) - {"head"}
    assert read["kernel"].tolist() == head["kernel"].tolist()
    assert json.loads((tmp_path / "b" / "config.json").read_text())["id2label"] == {"0": "reward"}


def test_on_a_mesh_the_head_is_on_every_device(tmp_path: pathlib.Path) -> None:
    classifier(tmp_path)
    _, params, head = load_classifier(tmp_path, mesh=make_mesh(MeshConfig(fsdp=4, tensor=2)))
    assert head["kernel"].sharding.is_fully_replicated
    assert len(by_path(params)["embed/embedding"].sharding.device_set) == 8


@pytest.mark.torch
@pytest.mark.parametrize("name", [TIED, "opt-350m", "gemma-3"])
def test_transformers_gives_the_scores_of_what_we_save(tmp_path: pathlib.Path, name: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    attributes = CASES[name].attributes
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", attributes, tensors_of(attributes)))
    head = {"kernel": jnp.asarray(wave("score.weight", (3, config.embedding_width)))}
    family = attributes["model_type"]
    save_classifier(tmp_path / "b", config, params, head, family=family, extra={"pad_token_id": 0})
    model, found = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "b", dtype=torch.float32, output_loading_info=True
    )
    assert json.loads((tmp_path / "b" / "config.json").read_text())["architectures"] == [type(model).__name__]
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    tokens = np.maximum(tokens_of(config.vocab_size), 1)
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(tokens)).logits.numpy()
    config, params, head = load_classifier(tmp_path / "b")
    B, S = tokens.shape
    slots = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    ends = jnp.full((B, S), S, jnp.int32)
    hidden = decoder.apply({"params": params}, jnp.asarray(tokens, jnp.int32), slots, ends, method="trunk")
    ours = np.asarray(jnp.einsum("bd,md->bm", hidden[:, -1], head["kernel"]))
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def test_wrong_models_are_an_error_that_says_what_to_do(tmp_path: pathlib.Path) -> None:
    attributes = CASES[UNTIED].attributes
    tensors = classifier(tmp_path / "a", num_labels=3)
    with pytest.raises(ValueError, match=r"LlamaForSequenceClassification.*load_classifier loads it"):
        load_pretrained(tmp_path / "a")
    write_checkpoint(tmp_path / "b", attributes, tensors_of(attributes))
    with pytest.raises(ValueError, match="load_pretrained loads it"):
        load_classifier(tmp_path / "b")
    classifier(tmp_path / "c", num_labels=3, id2label={"0": "good", "1": "bad"})
    with pytest.raises(ValueError, match=r"the config has 2 labels; tensor 'score\.weight' .* has 3 rows"):
        load_classifier(tmp_path / "c")
    del tensors["score.weight"]
    named = attributes | {"architectures": ["LlamaForSequenceClassification"]}
    write_checkpoint(tmp_path / "d", named, tensors)
    with pytest.raises(ValueError, match=r"no matrix 'score\.weight'"):
        load_classifier(tmp_path / "d")


def test_a_head_that_does_not_fit_is_refused(tmp_path: pathlib.Path) -> None:
    classifier(tmp_path / "a")
    config, params, head = load_classifier(tmp_path / "a")
    with pytest.raises(ValueError, match=r"shape \[3, 31\]; the config wants \[labels, 32\]"):
        save_classifier(tmp_path / "b", config, params, {"kernel": head["kernel"][:, :31]}, family="llama")
    with pytest.raises(ValueError, match="2 labels have names"):
        save_classifier(tmp_path / "b", config, params, head, family="llama", labels=["good", "bad"])
    with pytest.raises(ValueError, match="another config: unknown parameter 'hed/kernel'"):
        save_classifier(tmp_path / "b", config, params | {"hed": head}, head, family="llama")
    with pytest.raises(ValueError, match="no sequence classification for 'palm'"):
        palm = CASES["palm"].attributes
        read, weights = load_pretrained(write_checkpoint(tmp_path / "p", palm, tensors_of(palm)))
        save_classifier(tmp_path / "b", read, weights, {"kernel": jnp.ones((1, read.width))}, family="palm")
    assert not (tmp_path / "b").exists()
    save_pretrained(
        tmp_path / "b", config, {**jax.tree.map(jnp.asarray, params), "head": {"kernel": jnp.ones((97, 32))}}
    )
