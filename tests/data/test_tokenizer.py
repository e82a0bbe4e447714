"""The tokenizer loses nothing, adds nothing, and is the same for transformers."""

from __future__ import annotations

import json
import pathlib
import statistics

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrefine.data.arithmetic import generate
from jaxrefine.data.tokenizer import BEGIN, END, PAD, FastTokenizer, Tokenizer, load_tokenizer, train_tokenizer

from .small_tokenizers import llama, write


def texts(num: int) -> list[str]:
    return [text for example in generate("train", num) for text in (f"{example.question}\n", example.solution)]


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return train_tokenizer(texts(1500), 1024)


@pytest.fixture(scope="module")
def saved(tokenizer: FastTokenizer, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(directory)
    return directory


@pytest.fixture
def sentencepiece_like(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory as LLaMA-1/2 have it."""
    names = {"bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}, "pad_token": None}
    return write(tmp_path, llama(), tokenizer_config=names)


def test_it_is_what_the_library_asks_for(tokenizer: FastTokenizer) -> None:
    assert isinstance(tokenizer, Tokenizer)


@given(st.text())
@settings(deadline=None)
def test_any_text_comes_back(tokenizer: FastTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_texts_of_special_tokens_are_text(tokenizer: FastTokenizer) -> None:
    for word in (BEGIN, END, PAD):
        ids = tokenizer.encode(f"a {word} b")
        assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} & set(ids)
        assert tokenizer.decode(ids) == f"a {word} b"


def test_special_ids_are_three_and_left_out_of_text(tokenizer: FastTokenizer) -> None:
    special = [tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id]
    assert len(set(special)) == 3
    assert None not in special
    assert tokenizer.decode([tokenizer.bos_id or 0, *tokenizer.encode("She"), tokenizer.eos_id]) == "She"


def test_a_digit_is_a_token_and_a_token_holds_one_digit_at_most(tokenizer: FastTokenizer) -> None:
    vocabulary = tokenizer.backend.get_vocab()
    assert all(piece.isdigit() and len(piece) == 1 for piece in vocabulary if any(c.isdigit() for c in piece))
    assert len(tokenizer.encode("3*12=36")) == 7


def test_the_same_texts_give_the_same_tokenizer(tokenizer: FastTokenizer) -> None:
    assert train_tokenizer(iter(texts(1500)), 1024).backend.to_str() == tokenizer.backend.to_str()


def test_every_word_of_the_world_is_one_token(tokenizer: FastTokenizer) -> None:
    words = {word.strip(".,?:$") for text in texts(1000) for word in text.split()}
    words = {word for word in words if word.isalpha()}
    assert len(words) > 200
    assert [word for word in words if min(len(tokenizer.encode(word)), len(tokenizer.encode(f" {word}"))) > 1] == []


def test_problems_are_short(tokenizer: FastTokenizer) -> None:
    found = generate("test", 500)
    assert statistics.mean(len(tokenizer.encode(f"{example.question}\n")) for example in found) < 50
    assert statistics.mean(len(tokenizer.encode(example.solution)) for example in found) < 50


def test_the_vocabulary_keeps_its_limit() -> None:
    tokenizer = train_tokenizer(texts(100), 300)
    assert tokenizer.vocab_size == 300
    assert max(tokenizer.encode("".join(texts(20)))) < 300
    with pytest.raises(ValueError, match="vocab_size 200: at least 259"):
        train_tokenizer([], 200)


def test_many_texts_at_once_give_the_same_ids(tokenizer: FastTokenizer) -> None:
    some = texts(20)
    assert tokenizer.encode_batch(some) == [tokenizer.encode(text) for text in some]


def test_it_comes_back_from_its_directory(tokenizer: FastTokenizer, saved: pathlib.Path) -> None:
    loaded = load_tokenizer(saved)
    assert loaded.backend.to_str() == tokenizer.backend.to_str()
    assert (loaded.bos_id, loaded.eos_ids, loaded.pad_id) == (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id)
    assert loaded.vocab_size == tokenizer.vocab_size


def test_transformers_reads_the_directory_alike(tokenizer: FastTokenizer, saved: pathlib.Path) -> None:
    import transformers

    loaded = transformers.AutoTokenizer.from_pretrained(str(saved))
    assert loaded.is_fast
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
    )
    for text in (*texts(20), "héllo , wörld !", "x  y\n\n\tz 123"):
        assert loaded(text)["input_ids"] == tokenizer.encode(text)
        assert loaded.decode(tokenizer.encode(text)) == text


def test_a_directory_without_tokenizer_json_goes_through_transformers(
    tokenizer: FastTokenizer, tmp_path: pathlib.Path
) -> None:
    """The vocabulary and merges as GPT-2 has them, so its own way of cutting a text into words."""
    saved = json.loads(tokenizer.backend.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(saved["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in saved["merges"]))
    names = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **names}))
    loaded = load_tokenizer(tmp_path)
    assert (loaded.bos_id, loaded.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert loaded.encode("She has many eggs") == tokenizer.encode("She has many eggs")
    assert loaded.decode(loaded.encode("any text: é 12")) == "any text: é 12"


def test_a_sentencepiece_like_tokenizer_gets_no_bos_and_decodes_without_its_space(
    sentencepiece_like: pathlib.Path,
) -> None:
    tokenizer = load_tokenizer(sentencepiece_like)
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (1, (2,), None)
    ids = tokenizer.encode("ab ab")
    assert [tokenizer.backend.id_to_token(token) for token in ids] == ["▁ab", "▁ab"]
    assert tokenizer.decode(ids) == "ab ab"
    assert tokenizer.decode(tokenizer.encode("é\n")) == "é\n"
    assert 2 not in tokenizer.encode("</s>")


def test_every_end_of_text_id_is_known(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """LLaMA-3 ends a text, or a turn, or a message; which of them is trained on, its tokenizer's config says."""
    (tmp_path / "tokenizer.json").write_bytes((saved / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": BEGIN, "eos_token": END}))
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": [7, 8]}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [8, 9]}))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids) == (1, 2, (2, 7, 8, 9))


def test_ids_come_from_the_models_config_where_the_tokenizer_names_none(
    saved: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((saved / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 5}))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (None, (5,), None)


def test_early_llama_directories_with_empty_tokens_and_pad_minus_one_load(
    saved: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((saved / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "", "eos_token": ""}))
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1}))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (1, (2,), None)


def test_truncation_and_padding_saved_in_a_file_are_put_off(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer.encode("1234567")) == 7
    assert len(tokenizer.encode("1")) == 1


@pytest.mark.parametrize(
    ("files", "error", "reason"),
    [
        ({}, FileNotFoundError, "no tokenizer.json"),
        ({"tokenizer.json": "{"}, ValueError, r"tokenizer\.json"),
        ({"tokenizer_config.json": "[]"}, ValueError, r"tokenizer_config\.json: a JSON object, not list"),
        ({"tokenizer_config.json": "{"}, ValueError, r"tokenizer_config\.json.*JSON"),
        ({"tokenizer_config.json": '{"eos_token": "<none>"}'}, ValueError, "eos_token '<none>' is not in the vocab"),
        ({"tokenizer_config.json": "{}"}, ValueError, "no end-of-text token"),
        ({"config.json": '{"eos_token_id": "2"}'}, ValueError, r"config\.json: eos_token_id"),
        ({"config.json": '{"eos_token_id": 5000}'}, ValueError, r"config\.json: eos_token_id"),
    ],
)
def test_a_broken_directory_is_refused_with_file_and_reason(
    saved: pathlib.Path, tmp_path: pathlib.Path, files: dict[str, str], error: type[Exception], reason: str
) -> None:
    if files and "tokenizer.json" not in files:
        (tmp_path / "tokenizer.json").write_bytes((saved / "tokenizer.json").read_bytes())
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=reason):
        load_tokenizer(tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")
