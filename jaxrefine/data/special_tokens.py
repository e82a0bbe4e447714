"""Which ids begin, end and pad a text: what a model's directory says, and per family where it says nothing.

Files win over the table: they are what the checkpoint was made with. Whether BOS is put before a prompt is asked apart,
for many directories name a BOS that their model never read (GPT-2, BLOOM, Qwen2). The first that knows answers:

1. ``add_bos_token`` in tokenizer_config.json (``false`` counts only with a class that reads it);
2. the post-processor of tokenizer.json: a BOS put there stands first;
3. ``tokenizer_class`` in tokenizer_config.json, where that class puts none;
4. ``POLICIES``, by the ``model_type`` of config.json;
5. a BOS that is named is put.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from jaxrefine.artefacts.atomic import read_json
from jaxrefine.config import unknown_name


@dataclasses.dataclass(frozen=True)
class Policy:
    """The special tokens of a family, for what its directory leaves unsaid.

    Args:
      puts_bos: whether its models were trained with BOS before every text.
      bos: texts of the token, the first that the vocabulary has; none where there is no BOS.
      eos: likewise.
      pad: likewise; "eos_token" stands for whatever ends a text.
    """

    puts_bos: bool
    bos: tuple[str, ...] = ()
    eos: tuple[str, ...] = ()
    pad: tuple[str, ...] = ("eos_token",)


_ENDOFTEXT = Policy(False, eos=("<|endoftext|>",))
_LLAMA = Policy(
    True,
    ("<s>", "<|begin_of_text|>"),
    ("</s>", "<|end_of_text|>"),
    ("[PAD]", "<pad>", "<|finetune_right_pad_id|>", "<unk>", "eos_token"),
)
_GEMMA = Policy(True, ("<bos>",), ("<eos>",), ("<pad>",))
_BERT = Policy(True, ("[CLS]",), ("[SEP]",), ("[PAD]",))
_ROBERTA = Policy(True, ("<s>",), ("</s>",), ("<pad>",))

POLICIES: dict[str, Policy] = {
    "bert": _BERT,
    "bloom": Policy(False, eos=("</s>",), pad=("<pad>",)),
    "btlm": _ENDOFTEXT,
    "deberta-v2": _BERT,
    "falcon": _ENDOFTEXT,
    "RefinedWeb": _ENDOFTEXT,
    "RefinedWebModel": _ENDOFTEXT,
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": _ENDOFTEXT,
    "gpt_neox": _ENDOFTEXT,
    "gptj": _ENDOFTEXT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "opt": Policy(True, ("</s>",), ("</s>",), ("<pad>",)),
    "palm": _ENDOFTEXT,
    "qwen2": Policy(False, eos=("<|im_end|>", "<|endoftext|>"), pad=("<|endoftext|>", "eos_token")),
    "qwen3": Policy(False, eos=("<|im_end|>", "<|endoftext|>"), pad=("<|endoftext|>", "eos_token")),
    "roberta": _ROBERTA,
    "stablelm": _ENDOFTEXT,
    "stablelm_epoch": _ENDOFTEXT,
    "xlm-roberta": _ROBERTA,
}
"""By ``model_type``."""

# Of transformers: the first never read add_bos_token (the file's post-processor says it); the second put none unasked.
_DEAF = {"PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer"}
_PUTS_NONE = {"GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "BloomTokenizer", "CodeGenTokenizer"}

_ROLES = {"bos": ("bos", "cls"), "eos": ("eos", "sep"), "pad": ("pad",)}


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """The ids: of BOS where it is put, of every EOS (the first is trained on), of padding where there is one."""

    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None


class Directory:
    """What the files of a model say about its tokenizer.

    Args:
      path: the directory.
      backend: its tokenizer.
      model_type: instead of config.json's.
    Raises:
      ValueError: a file that is no JSON object, a ``model_type`` given that ``POLICIES`` lacks.
    """

    def __init__(self, path: pathlib.Path, backend: tokenizers.Tokenizer, *, model_type: str | None = None) -> None:
        if model_type is not None and model_type not in POLICIES:
            raise ValueError(unknown_name(model_type, POLICIES, "model_type"))
        self.path, self.backend = path, backend
        self.sources = {name: _read(path / name) for name in ("tokenizer_config.json", "special_tokens_map.json")}
        self.configs = {name: _read(path / name) for name in ("config.json", "generation_config.json")}
        self.model_type = model_type or self.configs["config.json"].get("model_type")
        self.policy = POLICIES.get(self.model_type) if isinstance(self.model_type, str) else None

    def special_tokens(
        self,
        *,
        bos: str | int | bool | None = None,
        eos: str | int | Sequence[str | int] | None = None,
        pad: str | int | None = None,
    ) -> SpecialTokens:
        """The ids; what is given here wins over every file.

        Args:
          bos: None: as the files and the family say; False: none; True: the one they name; a token or an id: this one.
          eos: None, a token or an id, or several.
          pad: None, a token or an id.
        Raises:
          ValueError: a token that the vocabulary lacks; no EOS; a family that puts BOS and no file that names it.
        """
        several = [eos] if isinstance(eos, str | int) else list(eos or ())
        eos_ids = [self._given("eos", one) for one in several] or self._found("eos")
        if not eos_ids:
            raise ValueError(
                f"{self.path}: no end-of-text token{self._tried('eos')}: give eos_token in tokenizer_config.json, "
                f"eos_token_id in config.json, or eos="
            )
        pad_id = self._pad(eos_ids[0]) if pad is None else self._given("pad", pad)
        return SpecialTokens(self._bos(bos), tuple(dict.fromkeys(eos_ids)), pad_id)

    def rows(self) -> int | None:
        """Rows of the model's embedding, as config.json says them."""
        config = self.configs["config.json"]
        for where in (config, config.get("text_config")):
            rows = where.get("vocab_size") if isinstance(where, dict) else None
            if isinstance(rows, int) and not isinstance(rows, bool) and rows > 0:
                return rows
        return None

    def _bos(self, given: str | int | bool | None) -> int | None:
        if given is False or (given is None and not self._puts_bos()):
            return None
        if given is not None and given is not True:
            return self._given("bos", given)
        if found := self._found("bos"):
            return found[0]
        unset = any("bos_token" in source and source["bos_token"] is None for source in self.sources.values())
        if given is None and (self.policy is None or unset):
            return None
        raise ValueError(
            f"{self.path}: no begin-of-text token{self._tried('bos')}: give bos_token in tokenizer_config.json, "
            f"bos_token_id in config.json, or bos= (False for none)"
        )

    def _puts_bos(self) -> bool:
        config = self.sources["tokenizer_config.json"]
        said, kind = config.get("add_bos_token"), str(config.get("tokenizer_class", ""))
        if isinstance(said, bool) and (said or (kind and kind not in _DEAF)):
            return said
        if self._first_of_template() in self._named("bos"):
            return True
        if kind.removesuffix("Fast") in _PUTS_NONE:
            return False
        return self.policy is None or self.policy.puts_bos

    def _first_of_template(self) -> int | None:
        """The id that the tokenizer's own post-processor puts before a text."""
        plain = self.backend.encode("a", add_special_tokens=False).ids
        whole = self.backend.encode("a", add_special_tokens=True).ids
        return whole[0] if whole and whole[:1] != plain[:1] else None

    def _pad(self, eos_id: int) -> int | None:
        if named := self._named("pad"):
            return named[0]
        for token in () if self.policy is None else self.policy.pad:
            token_id = eos_id if token == "eos_token" else self.backend.token_to_id(token)
            if token_id is not None and token_id < (self.rows() or token_id + 1):
                return token_id
        return None

    def _given(self, role: str, value: str | int) -> int:
        """The id of a token that an argument names."""
        token_id = self.backend.token_to_id(value) if isinstance(value, str) else value
        if token_id is None or token_id < 0 or self.backend.id_to_token(token_id) is None:
            raise ValueError(f"{self.path}: {role} = {value!r} is not in the vocabulary")
        return token_id

    def _found(self, role: str) -> list[int]:
        """Ids that files name, or else the family's own."""
        if (named := self._named(role)) or self.policy is None:
            return named
        own = [self.backend.token_to_id(token) for token in getattr(self.policy, role)]
        return [token_id for token_id in own if token_id is not None][:1]

    def _named(self, role: str) -> list[int]:
        """Ids that files name: the tokenizer's own first, then all of config.json and generation_config.json."""
        found: list[int] = []
        for key in _ROLES[role]:
            tokens = [_token_text(source.get(f"{key}_token")) for source in self.sources.values()]
            if token := next(filter(None, tokens), None):
                token_id = self.backend.token_to_id(token)
                if token_id is None:
                    raise ValueError(f"{self.path}: {key}_token {token!r} is not in the vocabulary")
                found.append(token_id)
                break
        for name, config in self.configs.items():
            value = config.get(f"{role}_token_id")
            for token_id in value if isinstance(value, list) else [] if value is None else [value]:
                if not isinstance(token_id, int) or token_id < 0 or self.backend.id_to_token(token_id) is None:
                    if role == "pad":  # often -1, or a row that the tokenizer lacks
                        continue
                    raise ValueError(f"{self.path / name}: {role}_token_id {token_id!r} is no id of the tokenizer")
                found.append(token_id)
        return list(dict.fromkeys(found))

    def _tried(self, role: str) -> str:
        if self.policy is None:
            return ""
        tokens = " or ".join(map(repr, getattr(self.policy, role)))
        return f" in any file, and the vocabulary lacks {self.model_type}'s own ({tokens or 'it has none'})"


def check_vocabulary(backend: tokenizers.Tokenizer, special: SpecialTokens, rows: int, where: str) -> None:
    """Refuses a tokenizer that was not made for an embedding of so many rows.

    Every id that a text can give, and BOS, EOS and padding, must have its row. Special tokens that no text gives may
    lie beyond (the image tokens of a text model). Rows without a token are usual: embeddings are rounded up to a
    multiple of at most 1024; more than that and a tenth of the rows says that the tokenizer is another model's.

    Args:
      backend: the tokenizer.
      special: the ids that are put around texts.
      rows: of the embedding.
      where: what the error names.
    Raises:
      ValueError: both sizes, and the first token without a row.
    """
    never = {token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special}
    around = {special.bos_id, special.pad_id, *special.eos_ids}
    vocabulary = backend.get_vocab(with_added_tokens=True)
    beyond = [(i, token) for token, i in vocabulary.items() if i >= rows and (i not in never or i in around)]
    size = max(vocabulary.values(), default=-1) + 1
    if beyond:
        first, token = min(beyond)
        raise ValueError(
            f"{where}: the tokenizer has {size} ids and the model's embedding {rows} rows: {token!r} is id {first}. "
            f"Use the checkpoint's own tokenizer, or name other special tokens (bos=, eos=, pad=)"
        )
    if rows - size > max(1024, rows // 10):
        raise ValueError(
            f"{where}: the tokenizer has {size} ids and the model's embedding {rows} rows: "
            f"{rows - size} rows without a token are more than rounding up leaves; is it another model's tokenizer?"
        )


def _read(file: pathlib.Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    value = read_json(file)
    if not isinstance(value, dict):
        raise ValueError(f"{file}: a JSON object, not {type(value).__name__}")
    return value


def _token_text(value: str | Mapping[str, Any] | None) -> str | None:
    """A special token as written in tokenizer_config.json: a string, or an object with its content.

    Early LLaMA conversions wrote "" for all of them; then the ids of config.json hold.
    """
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None
