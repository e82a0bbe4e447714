"""Text to token ids and back: our byte-level BPE, and any tokenizer in a Hugging Face directory.

Prompt and response are tokenised apart, without special tokens, and their ids concatenated; BOS and EOS are added by
the packer. So the boundary never moves with what follows it. A LLaMA-1/2 sentencepiece tokenizer puts a space before
the first word of every text it is given, so a response tokenised apart starts as after a space, which is how these
models are trained and sampled here, too; ``decode`` gives the text without it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from jaxrefine.artefacts.atomic import read_json, write_json, write_text

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"

# A word with the space before it; every digit by itself; marks with the space before and the space or line end after.
_PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[ \n]?|\s+"


@runtime_checkable
class Tokenizer(Protocol):
    """What the library needs of a tokenizer."""

    @property
    def bos_id(self) -> int | None:
        """The id that starts a prompt, where the model has one."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every id that ends a response; the first is the one that is trained on."""

    @property
    def eos_id(self) -> int:
        """The id that ends a response."""

    @property
    def pad_id(self) -> int | None:
        """The padding id, where there is one; nothing in this library reads it."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, no special tokens added, none recognised inside it."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens are left out."""


class FastTokenizer:
    """A ``tokenizers`` tokenizer with its special ids."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_id: int | None,
        eos_ids: Sequence[int],
        pad_id: int | None = None,
        files: pathlib.Path | None = None,
    ) -> None:
        if not eos_ids:
            raise ValueError("a tokenizer without an end-of-text id: give eos_ids, or eos_token in its config")
        # A prompt that spells out "<|end|>" is a text like any other: special tokens come from the packer alone.
        backend.encode_special_tokens = True
        self.backend = backend
        self.files = files
        self.bos_id = bos_id
        self.eos_ids = tuple(eos_ids)
        self.pad_id = pad_id

    @property
    def eos_id(self) -> int:
        """The id that ends a response, the one that is trained on."""
        return self.eos_ids[0]

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, no special tokens added, none recognised inside it."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, on all cores."""
        return [item.ids for item in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens are left out."""
        return self.backend.decode([int(token) for token in ids], skip_special_tokens=True)

    def save(self, directory: pathlib.Path | str) -> None:
        """Writes the files that ``load_tokenizer`` and transformers' AutoTokenizer read."""
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        names: dict[str, str] = {}
        for key, token in (("bos_token", self.bos_id), ("eos_token", self.eos_id), ("pad_token", self.pad_id)):
            if token is not None:
                names[key] = str(self.backend.id_to_token(token))
        write_text(directory / "tokenizer.json", self.backend.to_str(pretty=False))
        write_json(directory / "special_tokens_map.json", names)
        write_json(
            directory / "tokenizer_config.json",
            {
                **names,
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "add_bos_token": False,
                "add_eos_token": False,
                "model_max_length": 1_000_000,
            },
        )


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> FastTokenizer:
    """A lossless byte-level BPE with single-digit tokens, trained on texts; the same texts give the same tokenizer.

    Args:
      texts: the texts, read once.
      vocab_size: ids in all: 256 bytes, three special tokens, and merges; fewer where the texts hold fewer.
    Raises:
      ValueError: vocab_size leaves no room for the bytes.

    >>> tokenizer = train_tokenizer(["She has 36 eggs."] * 3, vocab_size=300)
    >>> tokenizer.decode(tokenizer.encode("any text: ñ 漢"))
    'any text: ñ 漢'
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + 3:
        raise ValueError(f"vocab_size {vocab_size}: at least {len(alphabet) + 3}, for all bytes and special tokens")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, BEGIN, END], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer=trainer)
    pad, begin, end = (int(backend.token_to_id(token)) for token in (PAD, BEGIN, END))  # type: ignore[arg-type]
    return FastTokenizer(backend, bos_id=begin, eos_ids=(end,), pad_id=pad)


def _read(file: pathlib.Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    value = read_json(file)
    if not isinstance(value, dict):
        raise ValueError(f"{file}: a JSON object, not {type(value).__name__}")
    return value


def _token_text(value: Any) -> str | None:
    """A special token as written in tokenizer_config.json: a string, or an object with its content.

    Early LLaMA conversions wrote "" for all of them; then the ids of config.json hold.
    """
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def load_tokenizer(directory: pathlib.Path | str) -> FastTokenizer:
    """The tokenizer of a Hugging Face directory, with the ids that begin and end a text.

    ``tokenizer.json`` is read directly; a directory with only a sentencepiece model goes through transformers'
    AutoTokenizer. BOS comes from tokenizer_config.json, special_tokens_map.json, config.json; EOS from the same,
    followed by every further one in generation_config.json (LLaMA-3 has several).

    Raises:
      FileNotFoundError: no such directory, or no tokenizer in it.
      ValueError: a broken file, a special token that the vocabulary lacks, no EOS at all.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    if (directory / "tokenizer.json").is_file():
        try:
            backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"{directory / 'tokenizer.json'}: {error}") from error
    else:
        backend = _through_transformers(directory)
    backend.no_truncation()
    backend.no_padding()
    sources = [_read(directory / name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
    configs = {name: _read(directory / name) for name in ("config.json", "generation_config.json")}

    def ids(role: str) -> list[int]:
        found: list[int] = []
        for source in sources:
            token = _token_text(source.get(f"{role}_token"))
            if token is not None:
                token_id = backend.token_to_id(token)
                if token_id is None:
                    raise ValueError(f"{directory}: {role}_token {token!r} is not in the vocabulary")
                found.append(token_id)
                break
        for name, config in configs.items():
            value = config.get(f"{role}_token_id")
            for token_id in value if isinstance(value, list) else [] if value is None else [value]:
                if not isinstance(token_id, int) or token_id < 0 or backend.id_to_token(token_id) is None:
                    if role == "pad":  # often -1, or a row that the tokenizer lacks; nothing here reads it
                        continue
                    raise ValueError(f"{directory / name}: {role}_token_id {token_id!r} is no id of the tokenizer")
                found.append(token_id)
        return list(dict.fromkeys(found))

    bos, pad, eos = ids("bos"), ids("pad"), ids("eos")
    if not eos:
        raise ValueError(
            f"{directory}: no end-of-text token: give eos_token in tokenizer_config.json or eos_token_id in config.json"
        )
    return FastTokenizer(
        backend, bos_id=bos[0] if bos else None, eos_ids=eos, pad_id=pad[0] if pad else None, files=directory
    )


def _through_transformers(directory: pathlib.Path) -> tokenizers.Tokenizer:
    models_here = sorted(file.name for file in directory.glob("*.model"))
    if not models_here and not (directory / "vocab.json").is_file():
        raise FileNotFoundError(f"{directory}: no tokenizer.json, *.model or vocab.json in it")
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ValueError(
            f"{directory}: without tokenizer.json it needs transformers: pip install 'jaxrefine[hf]'"
        ) from error
    loaded = AutoTokenizer.from_pretrained(str(directory), use_fast=True)
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{directory}: transformers has no fast tokenizer for it; convert it to tokenizer.json")
    return backend
