"""PaLM: logits equal to float64 NumPy's, ``.pt`` files in and out bit for bit, and what no tensor tells."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.palm import load_palm, save_palm
from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.conversion.torch_pickle import TorchFile
from jaxrefine.conversion.torch_writing import write_state_dict
from jaxrefine.models.families.palm import PALM
from tests.conversion.families.palm import CASES
from tests.conversion.logits import decoder_logits, relative_error
from tests.conversion.palm_oracle import palm_logits

TOLERANCE = 1e-4


def state_of(attributes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random tensors of a PaLM, as the public implementation stores them."""
    rng = np.random.default_rng(0)
    d, H, heads = attributes["dim"], attributes["dim_head"], attributes["heads"]
    F = d * attributes["ff_mult"]
    gamma = 1 - attributes.get("gamma_offset", 0)

    def normal(*shape: int, mean: float = 0.0) -> np.ndarray:
        return rng.normal(mean, 0.3, shape).astype(np.float32)

    state = {"token_emb.weight": normal(attributes["num_tokens"], d)}
    for layer in range(attributes["depth"]):
        block = {"norm.gamma": normal(d, mean=gamma), "norm.beta": np.zeros(d, np.float32)}
        if attributes.get("qk_rmsnorm"):
            block |= {"q_scale": normal(H, mean=1), "k_scale": normal(H, mean=1)}
        features = np.arange(0, H, 2, dtype=np.float32)
        block |= {
            "rotary_emb.inv_freq": (1 / 10_000 ** (features / H)).astype(np.float32),
            "rotary_emb.scale": ((features + 0.4 * H) / (1.4 * H)).astype(np.float32),
            "fused_attn_ff_proj.weight": normal(heads * H + 2 * H + 2 * F, d),
            "attn_out.weight": normal(d, heads * H),
            "ff_out.2.weight": normal(d, F),
        }
        state |= {f"layers.{layer}.fn.{name}": value for name, value in block.items()}
    state |= {"norm.gamma": normal(d, mean=gamma), "norm.beta": np.zeros(d, np.float32)}
    return state | {"to_logits.weight": state["token_emb.weight"]}


def said(attributes: dict[str, Any]) -> dict[str, Any]:
    """What the caller has to say of a file."""
    return {
        "gamma_offset": attributes.get("gamma_offset", 0),
        "xpos_base": attributes.get("rotary_xpos_scale_base", 512.0) if attributes.get("use_xpos", True) else None,
        "qk_scale": attributes.get("qk_scale"),
        "max_positions": attributes.get("max_seq_len", 8192),
    }


def oracle(attributes: dict[str, Any], state: dict[str, np.ndarray], row: np.ndarray) -> np.ndarray:
    options = said(attributes)
    return palm_logits(
        state,
        row,
        heads=attributes["heads"],
        head_width=attributes["dim_head"],
        gamma_offset=options["gamma_offset"],
        xpos_base=options["xpos_base"],
        score_scale=options["qk_scale"],
    )


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_numpy_in_double_precision(tmp_path: pathlib.Path, case: str) -> None:
    """Without padding, padded on the left and on the right."""
    attributes, state = CASES[case], state_of(CASES[case])
    config, params = load_palm(write_state_dict(tmp_path / "x.pt", state.items()), **said(attributes))
    assert config == PALM.from_hf(attributes)
    tokens = np.random.default_rng(1).integers(0, attributes["num_tokens"], (3, 11))
    real = np.stack([np.arange(11) >= 0, np.arange(11) >= 4, np.arange(11) < 8])
    ours = decoder_logits(config, params, tokens, real)
    for row in range(3):
        theirs = oracle(attributes, state, tokens[row][real[row]])
        assert relative_error(ours[row][real[row]], theirs) <= TOLERANCE, row


@pytest.mark.parametrize("case", [case for case in CASES if case != "palm"])
def test_each_mechanism_changes_the_logits(case: str) -> None:
    """Otherwise parity would say nothing of it: the same tensors, read without what the case has."""
    attributes, state = CASES[case], state_of(CASES[case])
    row = np.arange(11)
    changed = {"gamma_offset": 0, "qk_scale": 1.0, "rotary_xpos_scale_base": 99.0, "use_xpos": True}
    for key in (key for key in changed if key in attributes):
        theirs, other = oracle(attributes, state, row), oracle(attributes | {key: changed[key]}, state, row)
        assert relative_error(other, theirs) > 10 * TOLERANCE, key


@pytest.mark.parametrize("case", CASES)
def test_a_file_comes_back_bit_for_bit(tmp_path: pathlib.Path, case: str) -> None:
    state = state_of(CASES[case])
    config, params = load_palm(write_state_dict(tmp_path / "x.pt", state.items()), **said(CASES[case]))
    file = TorchFile(save_palm(tmp_path / "y.pt", config, params))
    assert set(file.tensors) == set(state)
    for name, value in state.items():
        read = file.read(name, (slice(None),) * value.ndim)
        assert read.dtype == value.dtype
        if "rotary_emb" in name:  # tables, not weights: computed in NumPy, to the last bit but one
            np.testing.assert_allclose(read, value, rtol=1e-6)
        else:
            assert read.tobytes() == value.tobytes(), name


def test_a_directory_with_a_config_comes_back_bit_for_bit(tmp_path: pathlib.Path) -> None:
    attributes = CASES["palm-qk-norm"]
    config, params = load_palm(write_state_dict(tmp_path / "x.pt", state_of(attributes).items()), **said(attributes))
    again, same = load_pretrained(save_pretrained(tmp_path / "saved", config, params, family="palm"))
    assert again == config
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), params, same))


def test_rows_of_the_fused_projection_are_queries_key_value_up_gate(tmp_path: pathlib.Path) -> None:
    """Heads of 2 features, 3 of them, width 4, feed-forward 8: rows 0–5, 6–7, 8–9, 10–17, 18–25."""
    attributes = CASES["palm"] | {"dim": 4, "dim_head": 2, "heads": 3, "depth": 1}
    state = state_of(attributes)
    state["layers.0.fn.fused_attn_ff_proj.weight"] = np.tile(np.arange(26, dtype=np.float32)[:, None], (1, 4))
    _, params = load_palm(write_state_dict(tmp_path / "x.pt", state.items()))
    rows = {
        path: np.asarray(leaf)[0, :, 0].tolist() for path, leaf in by_path(params["layers"]).items() if "kernel" in path
    }
    assert rows["attention/query/kernel"] == list(range(6))
    assert rows["attention/key/kernel"] == [6, 7]
    assert rows["attention/value/kernel"] == [8, 9]
    assert rows["feed_forward/up/kernel"] == list(range(10, 18))
    assert rows["feed_forward/gate/kernel"] == list(range(18, 26))


def _without(state: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda state: _without(state, "token_emb.weight"), ("no PaLM", "'token_emb.weight'")),
        (lambda state: _without(state, "layers.1.fn.norm.gamma"), ("'layers.1.fn.norm.gamma' is missing",)),
        (lambda state: state | {"norm.beta": np.ones(24, np.float32)}, ("'norm.beta'", "not zero")),
        (lambda state: state | {"layers.0.fn.q_bias": np.ones(8, np.float32)}, ("'layers.0.fn.q_bias'", "left over")),
        (
            lambda state: state | {"layers.0.fn.fused_attn_ff_proj.weight": np.ones((145, 24), np.float32)},
            ("'layers.0.fn.fused_attn_ff_proj.weight' has 145 rows",),
        ),
        (
            lambda state: state | {"to_logits.weight": state["token_emb.weight"] + 1},
            ("'to_logits.weight'", "differs from"),
        ),
    ],
)
def test_a_file_of_another_layout_is_an_error_that_names_file_and_tensor(
    tmp_path: pathlib.Path, change: Any, parts: tuple[str, ...]
) -> None:
    path = write_state_dict(tmp_path / "x.pt", change(state_of(CASES["palm"])).items())
    with pytest.raises(ValueError) as caught:
        load_palm(path)
    for part in ("x.pt", *parts):
        assert part in str(caught.value)
