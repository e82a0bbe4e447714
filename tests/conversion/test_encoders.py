"""Encoders in and out: transformers' hidden states and logits, lossless configs, bit-equal weights, clear refusals."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrefine.conversion.apply import abstract_params
from jaxrefine.conversion.encoders import load_encoder, with_classifier, with_fresh_head
from jaxrefine.conversion.pretrained import load_config, load_pretrained, save_pretrained
from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.packing import PackingConfig, batch_from_groups
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.families import ENCODERS
from jaxrefine.scoring.scorers import RouterHead
from tests.conversion.checkpoints import VARIANTS, tensors_of, write_checkpoint
from tests.conversion.encoder_cases import ENCODER_CASES, encoder_rows, encoder_tensors, write_encoder
from tests.conversion.make_encoder_reference import FEATURES, REFERENCE, encoder_outputs

TOLERANCE = 1e-4
V3 = ENCODER_CASES["deberta-v3"]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _apply(encoder: Encoder, params: Any, row: tuple[jax.Array, ...], method: str) -> jax.Array:
    return encoder.apply({"params": params}, *row, method=method)


def arrays(tokens: np.ndarray, real: np.ndarray) -> tuple[jax.Array, ...]:
    """Tokens, positions and ends of one run a row, padded on either side."""
    slots = np.arange(tokens.shape[1])[None]
    stop = (tokens.shape[1] - real[:, ::-1].argmax(1))[:, None]
    row = tokens, np.maximum(real.cumsum(1) - 1, 0), np.where(real, stop, slots + 1)
    return tuple(jnp.asarray(array, jnp.int32) for array in row)


def outputs(config: Any, params: Any, tokens: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our hidden states, and the logits at each row's first real token."""
    encoder, row = Encoder(config), arrays(tokens, real)
    hidden, logits = (np.asarray(_apply(encoder, params, row, method)) for method in ("trunk", "classify"))
    return hidden, logits[np.arange(len(tokens)), real.argmax(1)]


def assert_near(ours: np.ndarray, theirs: np.ndarray, where: np.ndarray) -> None:
    assert np.abs(ours - theirs)[where].max() <= TOLERANCE * np.abs(theirs[where]).max()


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return load_file(REFERENCE)


def test_the_reference_has_every_case_and_is_small(reference: dict[str, np.ndarray]) -> None:
    assert {name.partition("/")[0] for name in reference} == set(ENCODER_CASES)
    assert {case["model_type"] for case in ENCODER_CASES.values()} == set(ENCODERS)
    assert REFERENCE.stat().st_size <= 100_000


@pytest.mark.parametrize("name", ENCODER_CASES)
def test_outputs_equal_the_stored_ones(tmp_path: pathlib.Path, reference: dict[str, np.ndarray], name: str) -> None:
    tokens, real = encoder_rows(ENCODER_CASES[name])
    hidden, logits = outputs(*load_encoder(write_encoder(tmp_path, ENCODER_CASES[name])), tokens, real)
    assert_near(hidden[..., :FEATURES], reference[f"{name}/hidden"], real)
    assert_near(logits, reference[f"{name}/logits"], real[:, 0])  # transformers pools the first slot, padding or not


@pytest.mark.parametrize(("name", "other"), [("deberta-own-maps", "deberta-v3"), ("deberta-p2c", "deberta-own-maps"),
                                             ("deberta-convolution", "deberta-v3"), ("bert-relu", "bert")])  # fmt: skip
def test_each_mechanism_changes_the_stored_outputs(reference: dict[str, np.ndarray], name: str, other: str) -> None:
    """Otherwise parity would say nothing of it."""
    one, two = reference[f"{name}/hidden"], reference[f"{other}/hidden"]
    assert np.abs(one - two).max() > 100 * TOLERANCE * np.abs(one).max()


@pytest.mark.parametrize("name", ENCODER_CASES)
def test_a_config_loses_nothing(name: str) -> None:
    attributes = ENCODER_CASES[name] | {"torch_dtype": "float32", "transformers_version": "4.40.0"}
    family = ENCODERS[attributes["model_type"]]
    config = family.from_hf(attributes)
    written = family.to_hf(config, dtype="float32", extra=family.extra(attributes))
    assert family.from_hf(written) == config
    said_otherwise = {"pos_att_type", "max_relative_positions", "pooler_hidden_size"}
    kept = {key: value for key, value in attributes.items() if key not in said_otherwise}
    assert {key: written.get(key) for key in kept} == kept


@pytest.mark.parametrize(("layout", "shards"), [("safetensors", 1), ("safetensors", 3), ("bin", 1)])
@pytest.mark.parametrize("name", ["deberta-v3", "roberta"])
def test_weights_come_back_bit_equal(tmp_path: pathlib.Path, name: str, layout: str, shards: int) -> None:
    attributes = ENCODER_CASES[name]
    source = write_encoder(tmp_path / "theirs", attributes, layout=layout, num_shards=shards)
    save_pretrained(tmp_path / "ours", *load_encoder(source), family=attributes["model_type"], tokenizer_dir=source)
    saved, given = load_file(tmp_path / "ours" / "model.safetensors"), encoder_tensors(attributes)
    assert {name: value.tobytes() for name, value in saved.items()} == {
        name: value.tobytes() for name, value in given.items()
    }
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["id2label"] == attributes["id2label"]


@pytest.mark.parametrize("name", ["deberta-convolution", "bert", "xlm-roberta"])
def test_weights_of_other_mechanisms_come_back_bit_equal(tmp_path: pathlib.Path, name: str) -> None:
    attributes = ENCODER_CASES[name]
    source = write_encoder(tmp_path / "theirs", attributes)
    save_pretrained(tmp_path / "ours", *load_encoder(source), family=attributes["model_type"])
    saved, given = load_file(tmp_path / "ours" / "model.safetensors"), encoder_tensors(attributes)
    assert sorted(saved) == sorted(given)
    for tensor, value in given.items():
        np.testing.assert_array_equal(saved[tensor], value)


def test_a_pretrained_file_with_other_heads_and_old_names_gives_the_encoder(tmp_path: pathlib.Path) -> None:
    """As microsoft/mdeberta-v3-base is: no prefix is missing, no architecture is named, heads of another task."""
    attributes = {key: value for key, value in V3.items() if key != "architectures"}
    tensors = encoder_tensors(attributes)
    theirs = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): value for name, value in tensors.items()}
    theirs |= {
        "lm_predictions.lm_head.dense.weight": np.ones((24, 24), np.float32),
        "mask_predictions.classifier.bias": np.ones((1,), np.float32),
        "deberta.embeddings.position_embeddings.weight": np.ones((16, 24), np.float32),
        "deberta.embeddings.word_embeddings._weight": np.ones((61, 24), np.float32),
    }
    config, params = load_encoder(write_checkpoint(tmp_path, attributes, theirs, layout="bin"))
    assert (config.pooler, config.num_labels) == (None, None)
    np.testing.assert_array_equal(params["relative_norm"]["scale"], tensors["deberta.encoder.LayerNorm.weight"])


@pytest.mark.parametrize(("name", "prefix"), [("bert", "bert."), ("roberta", "roberta."), ("deberta-v3", "deberta.")])
def test_base_models_without_prefix_load(tmp_path: pathlib.Path, name: str, prefix: str) -> None:
    case = ENCODER_CASES[name]
    attributes = case | {"architectures": [case["architectures"][0].replace("ForSequenceClassification", "Model")]}
    tensors = encoder_tensors(attributes)
    config, params = load_encoder(
        write_checkpoint(tmp_path, attributes, {key.removeprefix(prefix): value for key, value in tensors.items()})
    )
    assert config.num_labels is None
    assert ("pooler" in params) == (name != "deberta-v3")
    np.testing.assert_array_equal(params["embed_norm"]["scale"], tensors[f"{prefix}embeddings.LayerNorm.weight"])


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v3"])
def test_the_head_may_stay_in_the_file(tmp_path: pathlib.Path, name: str) -> None:
    config, params = load_encoder(write_encoder(tmp_path, ENCODER_CASES[name]), head=False)
    assert (config.pooler, config.num_labels) == (None, None)
    assert not {"pooler", "classifier"} & set(params)


def test_an_encoder_is_no_decoder_and_a_decoder_no_encoder(tmp_path: pathlib.Path) -> None:
    encoder = write_encoder(tmp_path / "encoder", V3)
    for load in (load_pretrained, load_config):
        with pytest.raises(ValueError, match=r"config\.json: a deberta-v2 is an encoder"):
            load(encoder)
    decoder = write_checkpoint(tmp_path / "decoder", VARIANTS["llama-1"], tensors_of(VARIANTS["llama-1"]))
    with pytest.raises(ValueError, match=r"config\.json: a llama is a decoder"):
        load_encoder(decoder)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"pos_att_type": ["c2q"]}, "c2p"),
        ({"pos_att_type": None}, "terms"),
        ({"relative_attention": False}, "both need it"),
        ({"position_buckets": 7}, "num_buckets is 7"),
        ({"norm_rel_ebd": "layer_nrm"}, "did you mean 'layer_norm'"),
        ({"pooler_hidden_size": 25}, "pooler_hidden_size is 25"),
        ({"conv_kernel_size": 2}, "Convolution.width is 2"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"num_attention_heads": 5}, "must divide"),
        ({"position_bucket": 8}, "did you mean 'position_buckets'"),
        ({"num_labels": 2}, "id2label names 3"),
        ({"is_decoder": True}, "is_decoder is True"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        ENCODERS["deberta-v2"].from_hf(V3 | attributes, where="dir/config.json")
    assert str(refused.value).startswith("dir/config.json: ")


def test_a_mechanism_that_a_family_lacks_is_refused_when_it_is_written() -> None:
    config = ENCODERS["deberta-v2"].from_hf(V3)
    with pytest.raises(ValueError, match=r"EncoderConfig\.positions is 'none'; a bert .* has 'learned'"):
        ENCODERS["bert"].to_hf(config, dtype="float32")


@pytest.mark.parametrize(
    ("model_type", "attributes", "parameters"),
    [
        ("deberta-v2", V3 | {"position_buckets": 256, "intermediate_size": 3072, "vocab_size": 251_000}, 278_218_752),
        ("bert", {"architectures": ["BertModel"], "intermediate_size": 3072, "vocab_size": 30_522}, 109_482_240),
        (
            "roberta",
            {"architectures": ["RobertaModel"], "intermediate_size": 3072, "vocab_size": 50_265, "type_vocab_size": 1},
            124_645_632,
        ),
    ],
)
def test_full_sizes_have_the_published_numbers_of_parameters(
    model_type: str, attributes: dict[str, Any], parameters: int
) -> None:
    """mDeBERTa-v3-base (278 M), bert-base-uncased (110 M) and roberta-base (125 M), without allocating them."""
    sizes = {"model_type": model_type, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768}
    own = {key: value for key, value in attributes.items() if key not in ("pooler_hidden_size", "id2label", "label2id")}
    own |= {"architectures": own["architectures"] if model_type != "deberta-v2" else ["DebertaV2Model"]}
    limits = {"max_position_embeddings": 514 if model_type == "roberta" else 512}
    params = abstract_params(ENCODERS[model_type].from_hf(own | sizes | limits))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def _routed(config: Any, params: Any, scorer: Any, queries: list[tuple[int, ...]]) -> np.ndarray:
    groups = [TokenGroup(g, query, (), rewards=(0.0,) * 3) for g, query in enumerate(queries)]
    packing = PackingConfig(rows=1, slots=32, scored=0, groups=len(groups), candidates=0, rewards=3)
    batch = batch_from_groups([groups], packing)

    @jax.jit
    def logits(params: Any, scorer: Any) -> jax.Array:
        hidden = Encoder(config).apply({"params": params}, batch)
        return RouterHead(3).apply({"params": scorer}, None, hidden, batch).logits[0]

    return np.asarray(logits(params, scorer))


@pytest.mark.torch
def test_a_trained_router_is_a_sequence_classification_model_of_transformers(tmp_path: pathlib.Path) -> None:
    base, params = load_encoder(write_encoder(tmp_path / "base", V3), head=False)
    config, params = with_fresh_head(base, params, jax.random.key(0))
    scorer = {"kernel": jax.random.normal(jax.random.key(1), (3, 24))}
    queries = [(5, 6, 7, 8), (9, 10, 11, 12, 13, 14, 15), (16,)]
    logits = _routed(config, params, scorer, queries)
    save_pretrained(tmp_path / "router", *with_classifier(config, params, scorer["kernel"]), family="deberta-v2")
    real = np.arange(7)[None] < np.array([[len(query)] for query in queries])
    tokens = np.array([[*query, *[0] * (7 - len(query))] for query in queries])
    assert_near(logits, encoder_outputs(tmp_path / "router", tokens, real)[1], np.ones(3, bool))


def test_a_scorer_without_a_pooler_is_no_classification_model() -> None:
    config = ENCODERS["deberta-v2"].from_hf(V3 | {"architectures": ["DebertaV2Model"]})
    with pytest.raises(ValueError, match="train with_fresh_head"):
        with_classifier(config, {}, jnp.ones((3, 24)))


@pytest.mark.torch
@pytest.mark.parametrize("name", ENCODER_CASES)
def test_what_transformers_saves_gives_its_outputs(tmp_path: pathlib.Path, name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    case = {key: value for key, value in ENCODER_CASES[name].items() if key not in ("model_type", "architectures")}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(ENCODER_CASES[name]["model_type"], **case)
    )
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(float("LayerNorm.weight" in key), 0.3)
    model.save_pretrained(tmp_path)
    tokens, real = encoder_rows(ENCODER_CASES[name])
    ours, theirs = outputs(*load_encoder(tmp_path), tokens, real), encoder_outputs(tmp_path, tokens, real)
    for row in range(4):
        assert_near(ours[0][row], theirs[0][row], real[row])
    assert_near(ours[1], theirs[1], real[:, 0])


@pytest.mark.torch
@pytest.mark.parametrize("name", ENCODER_CASES)
def test_transformers_gives_the_outputs_of_what_we_save_and_misses_nothing(tmp_path: pathlib.Path, name: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    attributes = ENCODER_CASES[name]
    source = write_encoder(tmp_path / "a", attributes)
    config, params = load_encoder(source)
    save_pretrained(tmp_path / "b", config, params, family=attributes["model_type"], max_shard_bytes=20_000)
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "b", output_loading_info=True, dtype=torch.float32
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not loaded[1][kind], kind
    tokens, real = encoder_rows(attributes)
    theirs = encoder_outputs(tmp_path / "b", tokens, real)
    hidden, logits = outputs(config, params, tokens, real)
    assert_near(hidden, theirs[0], real)
    assert_near(logits, theirs[1], real[:, 0])


@pytest.mark.torch
def test_distances_beyond_512_are_clipped_as_in_mdeberta(tmp_path: pathlib.Path) -> None:
    attributes = V3 | {"max_position_embeddings": 512, "position_buckets": 256, "num_hidden_layers": 1}
    tokens = 5 + np.arange(700, dtype=np.int64)[None] * 7919 % 56
    real = np.ones_like(tokens, bool)
    source = write_encoder(tmp_path, attributes)
    hidden, logits = outputs(*load_encoder(source), tokens, real)
    theirs = encoder_outputs(source, tokens, real)
    assert_near(hidden, theirs[0], real)
    assert_near(logits, theirs[1], real[:, 0])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["deberta-v3", "deberta-convolution", "roberta"])
def test_gradients_equal_those_of_torch(tmp_path: pathlib.Path, name: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    attributes = ENCODER_CASES[name]
    config, params = load_encoder(write_encoder(tmp_path, attributes))
    tokens, real = (array[:2] for array in encoder_rows(attributes))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    mask = torch.from_numpy(real.astype(np.int64))
    model(torch.from_numpy(tokens), attention_mask=mask).logits.sin().sum().backward()
    encoder, row = Encoder(config), arrays(tokens, real)

    @jax.jit
    @jax.grad
    def gradient(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(encoder.apply({"params": params}, *row, method="classify")[:, 0]))

    save_pretrained(tmp_path / "slopes", config, gradient(params), family=attributes["model_type"])
    ours, theirs = load_file(tmp_path / "slopes" / "model.safetensors"), dict(model.named_parameters())
    assert set(ours) == set(theirs)
    scale = max(float(parameter.grad.abs().max()) for parameter in theirs.values() if parameter.grad is not None)
    padding = attributes["pad_token_id"]
    for key, slope in ours.items():
        expected = np.zeros_like(slope) if theirs[key].grad is None else theirs[key].grad.numpy()
        if "word_embeddings" in key:  # torch gives its padding row no gradient, whatever reads it
            slope[padding] = expected[padding]
        assert np.abs(slope - expected).max() <= TOLERANCE * scale, key
