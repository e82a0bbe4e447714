r"""k candidates a prompt from one prefill against the prompt given k times: tokens a second.

    python -m benchmarks.bench_generate
    python -m benchmarks.bench_generate --prompt 1024 --new 256 --groups 16 --candidates 1 4 16 \
        --model.vocab-size 32000 --model.width 2048 --model.num-layers 16 --model.num-heads 16 \
        --model.num-kv-heads 8 --model.hidden-width 8192

Both ways sample as many texts of as many tokens (no token ends one) in one batch, in turns. The random numbers of a
text depend on its prompt's id and its number alone, so the first candidate of one prefill and every copy of its prompt
must give the same text: ``equal_tokens`` is the share that does (1 in fp32; bf16 rounds the two ways differently, and a
text that has once turned elsewhere stays there).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import measure
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import forward_flops, generation_work, num_params
from jaxrefine.sampling.generate import Sample, generate, padded_length
from jaxrefine.sampling.policies import Policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    candidates: tuple[int, ...] = (1, 4, 16)
    """k."""
    prompt: int = 128
    """P, tokens of a prompt."""
    new: int = 48
    """R, tokens of each candidate."""
    groups: int = 4
    """Prompts at once."""
    policy: Policy = dataclasses.field(default_factory=Policy)
    model: measure.Model = dataclasses.field(default_factory=measure.Model)
    dtype: measure.DType = "auto"
    repeats: int = 3
    seed: int = 0


def cache_bytes(options: Options, k: int, dtype: Any, *, shared: bool) -> int:
    """Keys and values that the last token attends to: 2 L K H (prompts · P + texts · (R - 1))."""
    width = options.model.width // options.model.num_heads * options.model.num_kv_heads
    prompts = options.groups * (1 if shared else k)
    tokens = prompts * padded_length(options.prompt) + options.groups * k * (options.new - 1)
    return 2 * options.model.num_layers * width * tokens * jnp.dtype(dtype).itemsize


def run(options: Options) -> Iterator[dict[str, Any]]:
    """One record for each k."""
    around, dtype = measure.environment(), measure.resolve(options.dtype)
    config = options.model.config(options.prompt + options.new)
    decoder = Decoder(config, dtype=dtype, attention="dense")
    row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8)[None], jnp.full((1, 8), 8)
    params = jax.jit(lambda key: decoder.init(key, *row, method="trunk")["params"])(jax.random.key(options.seed))
    rng = np.random.default_rng(options.seed)
    prompts = rng.integers(1, config.vocab_size, (options.groups, options.prompt)).tolist()

    def sampled(given: list[list[int]], ids: list[int], number: int) -> Callable[[], list[list[Sample]]]:
        return lambda: generate(
            decoder,
            params,
            given,
            prompt_ids=ids,
            num_candidates=number,
            max_new_tokens=options.new,
            policy=options.policy,
            eos_id=config.vocab_size,  # none: every text is as long
            key=jax.random.key(options.seed),
            batch_size=len(given),
        )

    for k in options.candidates:
        ids = list(range(options.groups))
        repeated = [index for index in ids for _ in range(k)]
        calls = {
            "shared": sampled(prompts, ids, k),
            "repeated": sampled([prompts[index] for index in repeated], repeated, 1),
        }
        seconds, results = measure.interleaved(calls, repeats=options.repeats, seed=options.seed)
        texts = options.groups * k
        ways = {}
        for name in calls:
            prefills, copies = (options.groups, k) if name == "shared" else (texts, 1)
            work = generation_work([options.prompt] * prefills, [[options.new] * copies] * prefills)
            flops, taken = forward_flops(config, work), measure.spread(seconds[name])
            ways[name] = {
                "flops": flops,
                "cache_bytes": cache_bytes(options, k, dtype, shared=name == "shared"),
                "seconds": taken,
                "new_tokens_per_second": texts * options.new / taken["median"],
                **measure.speed(flops, taken["median"], dtype),
            }
        yield {
            "benchmark": "generate",
            **around,
            "seed": options.seed,
            "repeats": options.repeats,
            "dtype": dtype.name,
            "policy": dataclasses.asdict(options.policy),
            "model": {**dataclasses.asdict(options.model), "num_params": num_params(config)},
            "shapes": {"k": k, "P": options.prompt, "R": options.new, "prompts": options.groups},
            "flops": ways["shared"]["flops"],
            "ways": ways,
            "time_ratio": measure.ratios(seconds["repeated"], seconds["shared"]),
            "cache_ratio": ways["repeated"]["cache_bytes"] / ways["shared"]["cache_bytes"],
            **agreement(results["shared"], results["repeated"], k),
        }


def agreement(shared: list[list[Sample]], repeated: list[list[Sample]], k: int) -> dict[str, float]:
    """Share of tokens that are equal, and the largest difference of log-probs before the first that is not."""
    equal, total, largest = 0, 0, 0.0
    for number, [copy] in enumerate(repeated):
        first = shared[number // k][0]
        same = np.asarray(first.tokens) == np.asarray(copy.tokens)
        until = len(same) if same.all() else int(np.argmin(same))
        gap = np.abs(np.asarray(first.logprobs) - np.asarray(copy.logprobs))[:until]
        equal, total, largest = equal + int(same.sum()), total + len(same), max(largest, *gap.tolist(), 0.0)
    return {"equal_tokens": equal / total, "logprob_difference": largest}


if __name__ == "__main__":
    measure.report(run(tyro.cli(Options, description=__doc__)))
