"""Whether a converted decoder gives the logits that transformers computes from where it came from."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.typing import Array, Int, Params

PROMPTS = (
    "The capital of France is",
    "Question: If there are 3 cars and 2 more arrive, how many cars are there?\nAnswer:",
    "def fibonacci(n):\n    ",
)
_LENGTH = 24


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far two models' logits are apart, over all tokens of a few prompts."""

    max_difference: float
    relative_difference: float
    """Over the largest logit."""
    kl: float
    """Mean of KL(theirs ‖ ours), in nats."""
    top1_agreement: float
    num_tokens: int

    def __str__(self) -> str:
        return (
            f"parity with transformers over {self.num_tokens} tokens: max |Δ logit| {self.max_difference:.3g} "
            f"({self.relative_difference:.2g} of the largest), KL {self.kl:.3g} nats, "
            f"same most likely token {self.top1_agreement:.2%}"
        )


def has_torch() -> bool:
    """Whether transformers can compute here."""
    return importlib.util.find_spec("torch") is not None


def is_known(model_type: object) -> bool:
    """Whether transformers has code of its own for a config.json of that ``model_type``."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def compare(config: TransformerConfig, params: Params, reference: pathlib.Path) -> Parity:
    """Logits of ours, in fp32, against those that transformers computes from a directory.

    Args:
      config: of ours.
      params: the tree of ``Decoder(config)``.
      reference: a model directory that transformers loads, with its tokenizer or without.

    Raises:
      ValueError: transformers cannot load it.
    """
    rows = prompts(reference, config.vocab_size)
    theirs = _transformers_logits(reference, rows)
    ours = [_logits(config, params, row) for row in rows]
    pairs = list(zip(ours, theirs, strict=True))
    logprobs = [[scipy.special.log_softmax(one.astype(np.float64), axis=-1) for one in pair] for pair in pairs]
    num_tokens = sum(len(row) for row in rows)
    difference = max(float(np.abs(one - other).max()) for one, other in pairs)
    return Parity(
        max_difference=difference,
        relative_difference=difference / max(float(np.abs(other).max()) for _, other in pairs),
        kl=sum(float((np.exp(other) * (other - one)).sum()) for one, other in logprobs) / num_tokens,
        top1_agreement=sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in pairs) / num_tokens,
        num_tokens=num_tokens,
    )


def prompts(directory: pathlib.Path, vocab_size: int) -> list[np.ndarray]:
    """A few rows of token ids: ``PROMPTS`` by the directory's tokenizer, or evenly spread ids where it has none."""
    if (directory / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        rows = [np.array(tokenizer.encode(text).ids[:_LENGTH], np.int64) for text in PROMPTS]
        rows = [row for row in rows if row.size and row.max() < vocab_size]
        if rows:
            return rows
    return [(np.arange(_LENGTH, dtype=np.int64) * 7919 + start) % vocab_size for start in (1, 5, 11)]


def _logits(config: TransformerConfig, params: Params, row: Int[np.ndarray, " S"]) -> np.ndarray:
    """[S V] of one row."""
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    S = len(row)

    def logits(params: Params, tokens: Int[Array, "1 S"]) -> jax.Array:
        slots = jnp.arange(S, dtype=jnp.int32)[None]
        hidden = decoder.apply({"params": params}, tokens, slots, jnp.full_like(slots, S), method="trunk")
        form: Any = decoder.apply({"params": params}, method="logit_form")
        return form.logits(hidden)[0]

    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(logits)(params, jnp.asarray(row, jnp.int32)[None]))


def _transformers_logits(directory: pathlib.Path, rows: list[np.ndarray]) -> list[np.ndarray]:
    """[S V] of each row."""
    import transformers

    torch: Any = importlib.import_module("torch")  # optional, and only to be compared with
    # code that comes with a model (auto_map) is never run, nor asked about, and nothing is fetched
    options = {"attn_implementation": "sdpa", "trust_remote_code": False, "local_files_only": True}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **options).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{directory}: transformers cannot load it: {error}") from error
    with torch.no_grad():
        return [model(torch.from_numpy(row[None]), use_cache=False).logits[0].numpy() for row in rows]
