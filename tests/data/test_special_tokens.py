"""BOS, EOS and padding: what the files say, what the family says, what an argument says, and what nothing says."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken

import jaxrefine
from jaxrefine.data.examples import Candidates
from jaxrefine.data.packing import PackingConfig, TokenGroup, pack, tokenize_group
from jaxrefine.data.special_tokens import POLICIES
from jaxrefine.data.tokenizer import FastTokenizer, load_tokenizer
from jaxrefine.models.families import ENCODERS, FAMILIES

from .small_tokenizers import bert, deberta, gpt2, llama, write

LLAMA = {"bos_token": "<s>", "eos_token": "</s>"}
END = {"eos_token": "<|endoftext|>"}


def ids(tokenizer: FastTokenizer) -> tuple[int | None, tuple[int, ...], int | None]:
    return tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id


def test_every_family_states_its_policy() -> None:
    assert set(POLICIES) == {*FAMILIES, *ENCODERS}


@pytest.mark.parametrize(
    ("model_type", "backend", "expected"),
    [
        ("llama", llama(), (1, (2,), 0)),  # padding: UNK
        ("mistral", llama(), (1, (2,), 0)),
        ("gpt2", gpt2(), (None, (258,), 258)),  # padding: EOS
        ("gpt_neox", gpt2("<|endoftext|>", "<|padding|>"), (None, (258,), 258)),
        ("falcon", gpt2(), (None, (258,), 258)),
        ("palm", gpt2(), (None, (258,), 258)),
        ("llama", gpt2("<|begin_of_text|>", "<|end_of_text|>"), (258, (259,), 259)),  # LLaMA-3
        ("llama", gpt2("<s>", "</s>", "[PAD]"), (258, (259,), 260)),  # Alpaca's padding
        ("bloom", gpt2("<unk>", "<s>", "</s>", "<pad>"), (None, (260,), 261)),
        ("opt", gpt2("<pad>", "</s>"), (259, (259,), 258)),  # BOS is EOS
        ("gemma2", gpt2("<pad>", "<eos>", "<bos>"), (260, (259,), 258)),
        ("qwen2", gpt2("<|endoftext|>", "<|im_end|>"), (None, (259,), 258)),
        ("bert", bert(), (2, (3,), 0)),
        ("deberta-v2", deberta(), (1, (2,), 0)),
    ],
)
def test_a_family_knows_its_tokens_where_no_file_names_them(
    tmp_path: pathlib.Path, model_type: str, backend: Any, expected: tuple[int | None, tuple[int, ...], int]
) -> None:
    directory = write(tmp_path, backend, config={"model_type": model_type})
    assert ids(load_tokenizer(directory)) == expected
    (directory / "config.json").unlink()
    assert ids(load_tokenizer(directory, model_type=model_type)) == expected


def test_files_win_over_the_family(tmp_path: pathlib.Path) -> None:
    backend = gpt2("</s>", "<s>", "<first>", "<last>", "<fill>")
    names = {"bos_token": "<first>", "eos_token": {"content": "<last>"}, "pad_token": "<fill>"}
    write(tmp_path, backend, config={"model_type": "llama"}, tokenizer_config=names)
    assert ids(load_tokenizer(tmp_path)) == (260, (261,), 262)
    write(tmp_path, backend, config={"model_type": "llama", "eos_token_id": 258}, tokenizer_config={})
    assert ids(load_tokenizer(tmp_path)) == (259, (258,), 258)


def test_arguments_win_over_files(tmp_path: pathlib.Path) -> None:
    write(tmp_path, llama(), config={"model_type": "llama"}, tokenizer_config={**LLAMA, "pad_token": "<unk>"})
    assert ids(load_tokenizer(tmp_path, bos="</s>", eos=["<s>", 5], pad=2)) == (2, (1, 5), 2)
    assert ids(load_tokenizer(tmp_path, bos=False, eos=1)) == (None, (1,), 0)
    assert ids(load_tokenizer(tmp_path, bos=0)) == (0, (2,), 0)


def test_a_named_bos_is_put_only_where_its_model_read_it(tmp_path: pathlib.Path) -> None:
    """GPT-2 and BLOOM name a BOS and put none; OPT and LLaMA put it; add_bos_token says otherwise for either."""
    both = {"bos_token": "<|endoftext|>", **END}
    write(tmp_path, gpt2(), config={"model_type": "gpt2"}, tokenizer_config=both)
    assert load_tokenizer(tmp_path).bos_id is None
    assert load_tokenizer(tmp_path, bos=True).bos_id == 258
    write(tmp_path, gpt2(), config={"model_type": "gpt2"}, tokenizer_config={**both, "add_bos_token": True})
    assert load_tokenizer(tmp_path).bos_id == 258
    kind = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}  # Yi
    write(tmp_path, gpt2(), config={"model_type": "llama"}, tokenizer_config={**both, **kind})
    assert load_tokenizer(tmp_path).bos_id is None
    kind = {"tokenizer_class": "GPT2TokenizerFast"}  # SmolLM: a LLaMA with GPT-2's tokenizer
    write(tmp_path, gpt2(), config={"model_type": "llama"}, tokenizer_config={**both, **kind})
    assert load_tokenizer(tmp_path).bos_id is None
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False}  # never read there; ours once
    write(tmp_path, gpt2(), config={"model_type": "llama"}, tokenizer_config={**both, **kind})
    assert load_tokenizer(tmp_path).bos_id == 258


def test_a_bos_that_the_tokenizers_own_template_puts_is_put(tmp_path: pathlib.Path) -> None:
    write(tmp_path, llama(), config={"model_type": "gpt_neox"}, tokenizer_config=LLAMA)
    assert load_tokenizer(tmp_path).bos_id == 1


def test_a_bos_id_of_the_models_config_alone_is_not_put_for_qwen(tmp_path: pathlib.Path) -> None:
    config = {"model_type": "qwen2", "bos_token_id": 258, "eos_token_id": 258}
    write(tmp_path, gpt2(), config=config, tokenizer_config={"bos_token": None, **END})
    assert ids(load_tokenizer(tmp_path)) == (None, (258,), 258)


def test_a_saved_tokenizer_says_whether_it_puts_bos(tmp_path: pathlib.Path) -> None:
    """Whatever the family of the model it is put beside."""
    backend = gpt2("<|begin|>", "<|endoftext|>")
    for bos in (None, 258):
        FastTokenizer(backend, bos_id=bos, eos_ids=(259,)).save(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
        assert load_tokenizer(tmp_path).bos_id == bos


@pytest.mark.parametrize(
    ("config", "given", "reason"),
    [
        ({}, {}, "no end-of-text token: give eos_token in tokenizer_config.json, eos_token_id in config.json, or eos="),
        ({"model_type": "gemma"}, {}, r"the vocabulary lacks gemma's own \('<eos>'\)"),
        ({"model_type": "llama", "eos_token_id": 2}, {}, r"no begin-of-text token .* llama's own \('<s>' or .*bos="),
        ({"eos_token_id": 2}, {"bos": True}, "no begin-of-text token: give bos_token"),
        ({"eos_token_id": 2}, {"bos": "<s>"}, r"bos = '<s>' is not in the vocabulary"),
        ({"eos_token_id": 2}, {"pad": 5000}, r"pad = 5000 is not in the vocabulary"),
        ({"eos_token_id": 2}, {"eos": ["</s>"]}, r"eos = '</s>' is not in the vocabulary"),
        ({"eos_token_id": 2}, {"model_type": "lama"}, "unknown model_type 'lama'; did you mean 'llama'"),
    ],
)
def test_where_nothing_says_what_a_token_is_the_error_says_where_to_say_it(
    tmp_path: pathlib.Path, config: dict[str, Any], given: dict[str, Any], reason: str
) -> None:
    write(tmp_path, gpt2("<x>"), config=config)
    with pytest.raises(ValueError, match=reason):
        load_tokenizer(tmp_path, **given)


def test_a_bos_that_files_say_is_none_is_none(tmp_path: pathlib.Path) -> None:
    write(tmp_path, gpt2(), config={"model_type": "llama"}, tokenizer_config={"bos_token": None, **END})
    assert load_tokenizer(tmp_path).bos_id is None


def test_rows_are_padded_on_either_side_and_masked_by_position(tmp_path: pathlib.Path) -> None:
    """Padding is EOS here: a mask read from the ids would hide the EOS that ends the longer row."""
    tokenizer = load_tokenizer(write(tmp_path, gpt2(), config={"model_type": "gpt2"}))
    right, mask = tokenizer.padded([[7, 8, 258], [9]])
    np.testing.assert_array_equal(right, [[7, 8, 258], [9, 258, 258]])
    np.testing.assert_array_equal(mask, [[True, True, True], [True, False, False]])
    left, mask = tokenizer.padded([[7, 8, 258], [9]], side="left")
    np.testing.assert_array_equal(left, [[7, 8, 258], [258, 258, 9]])
    np.testing.assert_array_equal(mask, [[True, True, True], [False, False, True]])
    with pytest.raises(ValueError, match="unknown side 'up'"):
        tokenizer.padded([[7]], side="up")


def test_padding_is_asked_for_only_where_rows_need_it(tmp_path: pathlib.Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, gpt2(), tokenizer_config=END))
    assert tokenizer.pad_id is None
    assert tokenizer.padded([[1, 2], [3, 4]])[0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match=r"no padding token: give pad_token .* or pad="):
        tokenizer.padded([[1, 2], [3]])


def test_the_side_that_a_file_pads_and_cuts_on_changes_no_ids(tmp_path: pathlib.Path) -> None:
    groups = []
    for side in ("left", "right"):
        backend = llama()
        backend.enable_truncation(2, direction=side)
        backend.enable_padding(length=9, direction=side, pad_id=0, pad_token="<unk>")
        config = {**LLAMA, "padding_side": side, "truncation_side": side}
        tokenizer = load_tokenizer(write(tmp_path, backend, tokenizer_config=config))
        example = Candidates(id="0", prompt="ab a b ab", responses=("a b a",), labels=(1.0,))
        groups.append(tokenize_group(example, tokenizer, group_id=0, max_prompt=9, max_response=9))
    assert groups[0] == groups[1]
    assert isinstance(groups[0], TokenGroup)
    assert groups[0].prompt[0] == 1
    assert groups[0].responses[0][-1] == 2


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("backend", "model_type", "bos", "eos"),
    [
        (llama(), "llama", 1, 2),
        (gpt2("<pad>", "</s>"), "opt", 259, 259),
        (gpt2(), "gpt2", None, 258),
        (bert(), "bert", 2, 3),
        (deberta(), "deberta-v2", 1, 2),
    ],
)
def test_bos_stands_at_position_zero_only_and_eos_once(
    tmp_path: pathlib.Path, backend: Any, model_type: str, bos: int | None, eos: int, finished: bool
) -> None:
    """In the packed rows too, though templates put both, and though texts spell both out."""
    tokenizer = load_tokenizer(write(tmp_path, backend, config={"model_type": model_type}))
    spelled = "".join(backend.id_to_token(i) for i in {bos, eos} - {None})
    example = Candidates(
        id="0", prompt=f"ab {spelled} b", responses=("a b", f"b {spelled}"), labels=(1.0, 0.0), finished=(finished,) * 2
    )
    group = tokenize_group(example, tokenizer, group_id=0, max_prompt=64, max_response=64)
    assert isinstance(group, TokenGroup)
    assert group.prompt[0] == (tokenizer.encode(example.prompt)[0] if bos is None else bos)
    body = group.prompt[bos is not None :]
    assert not {bos, eos} & set(body)
    for response in group.responses:
        assert bos is None or bos == eos or bos not in response
        assert response.count(eos) == finished
        assert response[-1] == eos or not finished
    packing = PackingConfig.fit([group], rows=1, slots=128, expand=False)
    (batch,) = pack([group], packing)
    packed = np.asarray(batch.tokens)
    assert (packed == eos).sum() == 2 * finished + (bos == eos)


@pytest.mark.parametrize(("rows", "fits"), [(32001, True), (32000, False)])
def test_alpacas_added_padding_needs_its_row(tmp_path: pathlib.Path, rows: int, fits: bool) -> None:
    """LLaMA's 32000 ids and [PAD]: 32001; here 265 and 266."""
    backend = llama()
    backend.add_special_tokens(["[PAD]"])
    config = {"model_type": "llama", "vocab_size": rows - 32000 + 265}
    write(tmp_path, backend, config=config, tokenizer_config={**LLAMA, "pad_token": "[PAD]"})
    if fits:
        tokenizer = load_tokenizer(tmp_path)
        assert (tokenizer.pad_id, tokenizer.vocab_size) == (265, 266)
    else:
        with pytest.raises(ValueError, match=r"266 ids and the model's embedding 265 rows: '\[PAD\]' is id 265"):
            load_tokenizer(tmp_path)
        assert load_tokenizer(tmp_path, pad="<unk>").pad_id == 0


def test_padding_that_no_file_names_is_never_beyond_the_embedding(tmp_path: pathlib.Path) -> None:
    backend = llama()
    backend.add_special_tokens(["[PAD]"])
    write(tmp_path, backend, config={"model_type": "llama", "vocab_size": 265}, tokenizer_config=LLAMA)
    assert load_tokenizer(tmp_path).pad_id == 0


def test_a_word_without_a_row_is_refused_and_a_special_token_that_no_text_gives_is_not(tmp_path: pathlib.Path) -> None:
    """Gemma-3 1B has 262144 rows and the image token 262144."""
    backend = gpt2("<|endoftext|>", "<image>")
    config = {"model_type": "gemma3", "text_config": {"vocab_size": 259}, "bos_token_id": 258}
    write(tmp_path, backend, config=config, tokenizer_config=END)
    assert load_tokenizer(tmp_path).vocab_size == 260
    backend.add_tokens(["eggs"])
    write(tmp_path, backend)
    with pytest.raises(ValueError, match="261 ids and the model's embedding 259 rows: 'eggs' is id 260"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("rows", "fits"), [(259, True), (1283, True), (1284, False), (50257, False)])
def test_rows_without_a_token_are_allowed_as_far_as_rounding_up_leaves_them(
    tmp_path: pathlib.Path, rows: int, fits: bool
) -> None:
    """259 ids: 1024 rows more at most; 50257 rows are another model's."""
    write(tmp_path, gpt2(), config={"model_type": "gpt2", "vocab_size": rows})
    if fits:
        assert load_tokenizer(tmp_path).vocab_size == 259
    else:
        with pytest.raises(ValueError, match=f"259 ids and the model's embedding {rows} rows: {rows - 259} rows"):
            load_tokenizer(tmp_path)


def test_ids_with_gaps_count_to_the_last(tmp_path: pathlib.Path) -> None:
    backend = gpt2()
    text = backend.to_str().replace('"Ġab":257', '"Ġab":300')
    (tmp_path / "tokenizer.json").write_text(text)
    tokenizer = load_tokenizer(tmp_path, eos="ab")
    assert tokenizer.encode(" ab") == [300]
    assert tokenizer.vocab_size == 301


def test_an_added_word_is_one_id_and_keeps_its_text(tmp_path: pathlib.Path) -> None:
    backend = gpt2()
    backend.add_tokens(["<think>"])
    tokenizer = load_tokenizer(write(tmp_path, backend, tokenizer_config=END))
    assert tokenizer.encode("ab<think> ab") == [256, 259, 257]
    assert tokenizer.decode([256, 259, 257]) == "ab<think> ab"


def test_an_end_of_text_added_as_a_word_is_no_word(tmp_path: pathlib.Path) -> None:
    """Its file says special: false; a prompt that spells it out must not end."""
    backend = gpt2()
    backend.add_tokens([AddedToken("<end>", special=False)])
    tokenizer = load_tokenizer(write(tmp_path, backend, tokenizer_config={"eos_token": "<end>"}))
    assert tokenizer.eos_id == 259
    assert 259 not in tokenizer.encode("ab<end>")
    assert tokenizer.decode([*tokenizer.encode("ab<end>"), 259]) == "ab<end>"


@pytest.mark.parametrize("text", ["ñ", "漢字", "ab🥚b", "a\n\tb", "\x00"])
def test_bytes_fall_back_to_their_own_ids_and_come_back(tmp_path: pathlib.Path, text: str) -> None:
    tokenizer = load_tokenizer(write(tmp_path, llama(), tokenizer_config=LLAMA))
    expected = [3 + byte for character in text if character not in "ab" for byte in character.encode()]
    assert [token for token in tokenizer.encode(text) if 3 <= token < 259] == expected
    assert 0 not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(("make", "unknown"), [(bert, 1), (deberta, 3)])
def test_without_bytes_an_unknown_character_is_unk_and_never_an_error(
    tmp_path: pathlib.Path, make: Any, unknown: int
) -> None:
    tokenizer = load_tokenizer(write(tmp_path, make(), config={"model_type": "bert"}))
    assert unknown in tokenizer.encode("漢")


def test_a_unigram_piece_spelled_out_is_letters(tmp_path: pathlib.Path) -> None:
    """Special tokens are pieces of a Unigram vocabulary, and with log-probability 0 the best of them."""
    backend = deberta()
    backend.encode_special_tokens = True
    assert 2 in backend.encode("ab[SEP]b", add_special_tokens=False).ids
    tokenizer = load_tokenizer(write(tmp_path, deberta(), config={"model_type": "deberta-v2"}))
    letters = [10, 7, 9, 8, 6]  # ▁ab [ SEP ] b
    assert tokenizer.encode("ab[SEP]b") == letters
    assert tokenizer.encode_batch(["ab", "ab[SEP]b"]) == [[10], letters]
    assert tokenizer.decode([1, *letters, 2]) == "ab[SEP]b"


def test_a_prefix_space_is_put_once_and_a_response_starts_after_a_space(tmp_path: pathlib.Path) -> None:
    """With it "ab" is " ab"; without it the two differ, so " correct" as a verdict needs its leading space."""
    plain = load_tokenizer(write(tmp_path, gpt2(), tokenizer_config=END))
    assert (plain.encode("ab"), plain.encode(" ab")) == ([256], [257])
    assert plain.decode([256, 257]) == "ab ab"
    spaced = load_tokenizer(write(tmp_path, gpt2(prefix_space=True), tokenizer_config=END))
    assert spaced.encode("ab") == spaced.encode(" ab") == [257]
    example = Candidates(id="0", prompt="ab", responses=("ab",), labels=(1.0,))
    group = tokenize_group(example, spaced, group_id=0, max_prompt=9, max_response=9)
    assert isinstance(group, TokenGroup)
    assert (group.prompt, group.responses) == ((257,), ((257, 258),))


@pytest.mark.parametrize("name", ["arithmetic-small", "arithmetic-teacher"])
def test_a_shipped_model_keeps_the_ids_that_it_was_trained_with(name: str) -> None:
    """Its tokenizer_config.json says add_bos_token: false, to a class that never read it."""
    tokenizer = load_tokenizer(pathlib.Path(jaxrefine.__file__).parent / "shipped" / name)
    assert ids(tokenizer) == (1, (2,), 0)
    assert tokenizer.vocab_size == 860
