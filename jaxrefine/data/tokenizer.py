"""Text to token ids and back: our byte-level BPE, and any tokenizer in a Hugging Face directory.

Prompt and response are tokenised apart, without special tokens, and their ids concatenated; BOS and EOS are added by
the packer. So the boundary never moves with what follows it. A LLaMA-1/2 sentencepiece tokenizer puts a space before
the first word of every text it is given, so a response tokenised apart starts as after a space, which is how these
models are trained and sampled here, too; ``decode`` gives the text without it. A text that spells out a special token
never gets its id.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.config import unknown_name
from jaxrefine.data.special_tokens import Directory, check_vocabulary
from jaxrefine.typing import Bool, Int

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
        """The padding id, where there is one; packed batches have none, so only ``FastTokenizer.padded`` reads it."""

    @property
    def vocab_size(self) -> int:
        """The largest id plus one, special tokens included: the rows that an embedding needs."""

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
        for token_id, token in backend.get_added_tokens_decoder().items():
            if not token.special and token_id in {bos_id, pad_id, *eos_ids}:
                backend.add_special_tokens([AddedToken(token.content, normalized=False, special=True)])
        self._leaks = _unigram_specials(backend)
        self.backend = backend
        self.files = files
        self.bos_id = bos_id
        self.eos_ids = tuple(eos_ids)
        self.pad_id = pad_id

    @property
    def eos_id(self) -> int:
        """The id that ends a response, the one that is trained on."""
        return self.eos_ids[0]

    @functools.cached_property
    def vocab_size(self) -> int:
        """The largest id plus one, special tokens included: the rows that an embedding needs."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a text, no special tokens added, none recognised inside it."""
        return self._checked(text, self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, on all cores."""
        texts = list(texts)
        encoded = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [self._checked(text, item.ids) for text, item in zip(texts, encoded, strict=True)]

    def padded(
        self, rows: Sequence[Sequence[int]], *, side: str = "right"
    ) -> tuple[Int[np.ndarray, "N S"], Bool[np.ndarray, "N S"]]:
        """Rows of ids made equally long, and which of them are real: by position, for EOS may be the padding id.

        Args:
          rows: N rows of ids.
          side: "left" or "right", where the padding goes.
        Returns:
          Ids and mask, [N S] each.
        Raises:
          ValueError: an unknown side; rows of unequal lengths where nothing says what the padding id is.

        >>> tokenizer = train_tokenizer(["ab"], vocab_size=300)
        >>> tokenizer.padded([[5, 6], [7]], side="left")[0].tolist()
        [[5, 6], [0, 7]]
        """
        if side not in ("left", "right"):
            raise ValueError(unknown_name(side, ("left", "right"), "side"))
        longest = max(map(len, rows), default=0)
        if self.pad_id is None and any(len(row) < longest for row in rows):
            raise ValueError(
                f"{self.files or 'tokenizer'}: no padding token: give pad_token in tokenizer_config.json, "
                f"pad_token_id in config.json, or pad= (any id will do, eos too: the mask never reads it)"
            )
        ids = np.full((len(rows), longest), self.pad_id or 0, np.int32)
        mask = np.zeros(ids.shape, bool)
        for n, row in enumerate(rows):
            where = slice(longest - len(row), longest) if side == "left" else slice(len(row))
            ids[n, where], mask[n, where] = row, True
        return ids, mask

    def _checked(self, text: str, ids: list[int]) -> list[int]:
        """The ids, or those of the text's letters where it spells out special tokens that Unigram takes for pieces."""
        if self._leaks.isdisjoint(ids):
            return ids
        return self._literal.encode(text, add_special_tokens=False).ids

    @functools.cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        """The same tokenizer, its special tokens renamed to what no text holds; ids are as they were."""
        state = json.loads(self.backend.to_str())
        state["post_processor"] = None
        for token in state["added_tokens"]:
            if token["id"] in self._leaks:
                token["content"] = state["model"]["vocab"][token["id"]][0] = f"\U0010fffd{token['id']}\U0010fffd"
        renamed = tokenizers.Tokenizer.from_str(json.dumps(state))
        renamed.encode_special_tokens = True
        return renamed

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
                "add_bos_token": self.bos_id is not None,
                "add_eos_token": False,
                "model_max_length": 1_000_000,
            },
        )


def _unigram_specials(backend: tokenizers.Tokenizer) -> set[int]:
    """Special tokens, UNK apart, that a Unigram model finds spelled out in a text: it has them among its pieces."""
    if not isinstance(backend.model, models.Unigram):
        return set()
    added, pieces = backend.get_added_tokens_decoder(), backend.get_vocab_size(with_added_tokens=False)
    unknown = getattr(backend.model, "unk_id", None)
    return {i for i, token in added.items() if token.special and i < pieces and i != unknown}


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


def load_tokenizer(
    directory: pathlib.Path | str,
    *,
    bos: str | int | bool | None = None,
    eos: str | int | Sequence[str | int] | None = None,
    pad: str | int | None = None,
    model_type: str | None = None,
) -> FastTokenizer:
    """The tokenizer of a Hugging Face directory, with the ids that begin, end and pad a text.

    ``tokenizer.json`` is read directly; a directory with only a sentencepiece model goes through transformers'
    AutoTokenizer. BOS and padding come from the arguments, else from tokenizer_config.json, special_tokens_map.json,
    config.json, else from the family's policy (``jaxrefine.data.special_tokens``); EOS from the same, followed by every
    further one in generation_config.json (LLaMA-3 has several). Where config.json has a ``vocab_size``, the tokenizer
    must be one for it.

    Args:
      directory: with the tokenizer, and the model's config.json where there is one.
      bos: None: as the files and the family say; False: none; True: the one they name; a token or an id: this one.
      eos: None, a token or an id, or several; the first is trained on.
      pad: None, a token or an id.
      model_type: the family, instead of config.json's.

    Raises:
      FileNotFoundError: no such directory, or no tokenizer in it.
      ValueError: a broken file, a special token that the vocabulary lacks, no EOS at all, a family that puts BOS where
        nothing names it, a vocabulary that is not the embedding's.
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
    files = Directory(directory, backend, model_type=model_type)
    special = files.special_tokens(bos=bos, eos=eos, pad=pad)
    rows = files.rows()
    if rows is not None:
        check_vocabulary(backend, special, rows, str(directory))
    return FastTokenizer(
        backend, bos_id=special.bos_id, eos_ids=special.eos_ids, pad_id=special.pad_id, files=directory
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
    # code that comes with a tokenizer (auto_map) is never run, nor asked about, and nothing is fetched
    loaded = AutoTokenizer.from_pretrained(
        str(directory), use_fast=True, trust_remote_code=False, local_files_only=True
    )
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{directory}: transformers has no fast tokenizer for it; convert it to tokenizer.json")
    return backend
