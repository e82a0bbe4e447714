r"""The sampling engine beside transformers' generate and beside itself without shared prompts: tokens a second.

    python -m benchmarks.bench_sampling
    python -m benchmarks.bench_sampling --weights random --prompt 1024 --new 256 --prompts 32 --candidates 1 4 16 64 \
        --model.vocab-size 32000 --model.width 2048 --model.num-layers 16 --model.num-heads 16 \
        --model.num-kv-heads 8 --model.hidden-width 8192

``shipped`` samples word problems with the model that comes with the package: texts end when they end. ``random`` is a
LLaMA of any size, exported to a temporary directory; every text is as long. The three ways take the same prompts and
temperature 1, in turns:

engine        each prompt read once, its candidates in slots that are refilled
repeated      the same engine and keys, but each candidate an ask of its own with one slot a row: nothing is shared
transformers  generate(num_return_sequences=k) of the same directory, as many rows at once as the engine has slots

Tokens are those of the texts, EOS included, never padding; a round before the timed ones compiles. On a busy machine
pin the process to one core (``OMP_NUM_THREADS=1 taskset -c 0``): torch's threads wait for one another. The first two
must give the same texts: ``equal_texts`` is the share that does. On a GPU or TPU, ``limit`` is what its memory allows
(PEAK_BYTES) and ``share_of_limit`` what is reached of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import measure
from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.data.arithmetic import problem
from jaxrefine.data.tokenizer import load_tokenizer
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import num_params
from jaxrefine.sampling.engine import COLUMNS, Ask, Draw, Engine
from jaxrefine.sampling.generate import SLOTS, Sample
from jaxrefine.sampling.policies import Policy

PEAK_BYTES: tuple[tuple[str, float], ...] = (
    ("B200", 8.0e12),
    ("H200", 4.8e12),
    ("H100 PCIe", 2.0e12),
    ("H100 NVL", 3.9e12),
    ("H100", 3.35e12),
    ("A100-SXM4-80GB", 2.039e12),
    ("A100 80GB PCIe", 1.935e12),
    ("A100", 1.555e12),
    ("L40S", 864e9),
    ("L4", 300e9),
    ("TPU7x", 7.37e12),
    ("TPU v6", 1.64e12),
    ("TPU v5 lite", 819e9),
    ("TPU v5e", 819e9),
    ("TPU v5", 2.765e12),
    ("TPU v4", 1.228e12),
)
"""Memory bytes a second, from the makers' data sheets: the first name that the device's kind contains."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    candidates: tuple[int, ...] = (1, 4, 16, 64)
    """k."""
    weights: Literal["shipped", "random"] = "shipped"
    prompts: int = 16
    prompt: int = 128
    """P, tokens of a prompt of the random model."""
    new: int = 96
    """R, at which a text is cut."""
    slots: int = SLOTS
    """Candidates at once, and rows of transformers' batches."""
    columns: int = COLUMNS
    """Slots that share a prompt."""
    model: measure.Model = dataclasses.field(default_factory=measure.Model)
    dtype: measure.DType = "auto"
    peer: bool = True
    """Whether transformers is measured; it needs torch."""
    repeats: int = 3
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Case:
    """A model directory and the prompts for it."""

    directory: pathlib.Path
    prompts: list[list[int]]
    eos_id: int | None
    """None where no token ends a text."""


@contextlib.contextmanager
def case_of(options: Options) -> Iterator[Case]:
    """The shipped model, or one of random weights in a directory of its own."""
    if options.weights == "shipped":
        tokenizer = load_tokenizer(SHIPPED)
        bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        questions = (problem("test", n, options.seed).instruction().prompt for n in range(options.prompts))
        yield Case(SHIPPED, [bos + tokenizer.encode(question) for question in questions], tokenizer.eos_id)
        return
    config = options.model.config(options.prompt + options.new)
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8)[None], jnp.full((1, 8), 8)
    params = jax.jit(lambda key: decoder.init(key, *row, method="trunk")["params"])(jax.random.key(options.seed))
    rng = np.random.default_rng(options.seed)
    prompts = rng.integers(1, config.vocab_size, (options.prompts, options.prompt)).tolist()
    with tempfile.TemporaryDirectory() as directory:
        save_pretrained(directory, config, params, dtype=jnp.float32)
        del params
        yield Case(pathlib.Path(directory), prompts, None)


def engine_call(options: Options, case: Case, k: int, dtype: Any, *, shared: bool) -> tuple[Engine, Callable[[], Any]]:
    """The engine, and what samples k candidates of every prompt with it."""
    config, params = load_pretrained(case.directory)
    engine = Engine(
        Decoder(config, dtype=dtype, attention="dense"),
        params,
        eos_ids=(config.vocab_size if case.eos_id is None else case.eos_id,),
        key=jax.random.key(options.seed),
        max_new_tokens=options.new,
        slots=min(options.slots, k * len(case.prompts)),
        columns=min(options.columns, k) if shared else 1,
    )
    draws = [Draw(n, Policy()) for n in range(k)]
    groups = [tuple(draws)] if shared else [(draw,) for draw in draws]
    asks = [
        Ask(id=number, prompt=tuple(prompt), draws=group)
        for number, prompt in enumerate(case.prompts)
        for group in groups
    ]

    def call() -> list[Sample]:
        found = dict(engine.run(asks))
        return [sample for index in range(len(asks)) for sample in found[index]]

    return engine, call


def peer_call(options: Options, case: Case, k: int, dtype: Any) -> Callable[[], list[int]]:
    """Transformers' generate: the lengths of its texts."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    place = "cuda" if jax.devices()[0].platform == "gpu" and torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if jnp.dtype(dtype) == jnp.bfloat16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(str(case.directory), dtype=kind).to(place).eval()
    generation = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=k, max_new_tokens=options.new,
        pad_token_id=0, eos_token_id=case.eos_id, use_cache=True,
    )  # fmt: skip
    model.generation_config = generation
    at_once = max(1, options.slots // k)

    def lengths(out: Any) -> list[int]:
        ended = out == (-1 if case.eos_id is None else case.eos_id)
        until = np.where(ended.any(1), ended.argmax(1) + 1, out.shape[1])
        return until.tolist()

    def call() -> list[int]:
        torch.manual_seed(options.seed)
        found = []
        for first in range(0, len(case.prompts), at_once):
            some = case.prompts[first : first + at_once]
            width = max(map(len, some))
            ids, mask = np.zeros((len(some), width), np.int64), np.zeros((len(some), width), np.int64)
            for row, prompt in enumerate(some):
                ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
            with torch.inference_mode():
                out = model.generate(
                    torch.tensor(ids, device=place),
                    attention_mask=torch.tensor(mask, device=place),
                    generation_config=generation,
                )
            found += lengths(out[:, width:].cpu().numpy())
        return found

    return call


def limit(
    config: TransformerConfig, dtype: Any, *, rows: int, columns: int, prompt: float, held: float, peak: float
) -> float:
    """Tokens a second that memory allows: rows · columns over (weights + keys and values read in a step) / peak.

    t ≥ (bytes of the weights + kv · (rows · P + rows · columns · r)) / bandwidth, kv = 2 L K H bytes a token.

    Args:
      config: of the model.
      dtype: of weights and cache.
      rows: prompts at once.
      columns: candidates of each.
      prompt: P, tokens of a prompt.
      held: r, tokens that a candidate's cache holds in the mean.
      peak: bytes a second.

    >>> tiny = TransformerConfig(vocab_size=8, width=4, num_layers=1, num_heads=1, num_kv_heads=1, head_width=4,
    ...                          hidden_width=4)
    >>> read = 2 * num_params(tiny) + 2 * 2 * 4 * (3 * 10 + 6 * 5)
    >>> limit(tiny, "bfloat16", rows=3, columns=2, prompt=10, held=5, peak=float(read))
    6.0
    """
    size = jnp.dtype(dtype).itemsize
    token = 2 * config.num_layers * config.num_kv_heads * config.head_width * size
    read = num_params(config) * size + token * (rows * prompt + rows * columns * held)
    return rows * columns * peak / read


def peak_bytes() -> float | None:
    """Of one device; None where it is not known (a CPU)."""
    kind = jax.devices()[0].device_kind.lower()
    return next((peak for name, peak in PEAK_BYTES if name.lower() in kind), None)


def run(options: Options) -> Iterator[dict[str, Any]]:
    """One record for each k."""
    around, dtype = measure.environment(), measure.resolve(options.dtype)
    with case_of(options) as case:
        config, _ = load_pretrained(case.directory)
        for k in options.candidates:
            engine, shared = engine_call(options, case, k, dtype, shared=True)
            _, repeated = engine_call(options, case, k, dtype, shared=False)
            calls: dict[str, Callable[[], Any]] = {"engine": shared, "repeated": repeated}
            if options.peer:
                calls["transformers"] = peer_call(options, case, k, dtype)
            seconds, results = measure.interleaved(calls, repeats=options.repeats, seed=options.seed)
            lengths = {
                name: [one if isinstance(one, int) else len(one.tokens) for one in found]
                for name, found in results.items()
            }
            peak, P = peak_bytes(), float(np.mean(list(map(len, case.prompts))))
            held = float(np.mean(lengths["engine"])) / 2
            allowed = None
            if peak is not None:
                allowed = limit(config, dtype, rows=engine.rows, columns=engine.columns, prompt=P, held=held, peak=peak)
            ways = {
                name: {
                    "seconds": measure.spread(seconds[name]),
                    "tokens": sum(lengths[name]),
                    "tokens_per_second": sum(lengths[name]) / measure.spread(seconds[name])["median"],
                }
                for name in calls
            }
            others = [name for name in calls if name != "engine"]
            rates = {name: [sum(lengths[name]) / taken for taken in seconds[name]] for name in calls}
            yield {
                "benchmark": "sampling",
                **around,
                "seed": options.seed,
                "repeats": options.repeats,
                "dtype": dtype.name,
                "weights": options.weights,
                "num_params": num_params(config),
                "shapes": {"k": k, "prompts": len(case.prompts), "P": P, "R": options.new,
                           "rows": engine.rows, "columns": engine.columns},
                "ways": ways,
                "rate_ratio": {name: measure.ratios(rates["engine"], rates[name]) for name in others},
                "equal_texts": _equal(results["engine"], results["repeated"]),
                "limit": allowed,
                "share_of_limit": None if allowed is None else ways["engine"]["tokens_per_second"] / allowed,
            }  # fmt: skip


def _equal(found: Sequence[Sample], other: Sequence[Sample]) -> float:
    return float(np.mean([one.tokens == two.tokens for one, two in zip(found, other, strict=True)]))


if __name__ == "__main__":
    measure.report(run(tyro.cli(Options, description=__doc__)))
