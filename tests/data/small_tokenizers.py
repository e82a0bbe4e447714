"""Tokenizers of a few pieces, one of each kind that the families have, written as a model's directory has them."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors


def write(directory: pathlib.Path, backend: tokenizers.Tokenizer, **files: dict[str, Any]) -> pathlib.Path:
    """``tokenizer.json`` and a JSON file for every other name."""
    backend.save(str(directory / "tokenizer.json"))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


def llama() -> tokenizers.Tokenizer:
    """As LLaMA-1/2 have it: a space put before every text, bytes as fall-back, BOS by post-processor; 265 ids."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def gpt2(*special: str, prefix_space: bool = False) -> tokenizers.Tokenizer:
    """As GPT-2 has it: byte-level BPE, no template; 258 ids and the special tokens from 258 on."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "ab", "Ġab"])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [("a", "b"), ("Ġ", "ab")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special or ["<|endoftext|>"]))
    return backend


def bert() -> tokenizers.Tokenizer:
    """As BERT has it: WordPiece, without bytes, [CLS] and [SEP] by template; 9 ids."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "egg", "##s", "[", "]", "cls"]
    backend = tokenizers.Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.add_special_tokens(pieces[:4])
    return backend


def deberta() -> tokenizers.Tokenizer:
    """As DeBERTa-v3 has it: Unigram, a space put before every text, no bytes; 11 ids and [MASK]."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    pieces = (
        [(piece, 0.0) for piece in special] + [(p, -3.0) for p in ("▁", "a", "b", "[", "]", "SEP")] + [("▁ab", -4.0)]
    )
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    backend.add_special_tokens([*special, "[MASK]"])
    return backend
