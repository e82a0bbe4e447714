"""A model of ours as lm-eval asks for one: likelihoods by packed rows with shared contexts, texts by the engine.

lm-eval is the extra ``lm-eval``; it is imported when it is used, and torch is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.artefacts.progress import progress, say
from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.packing import PackingConfig, pack, unpack
from jaxrefine.losses.logprobs import default_chunk_size, token_logprobs
from jaxrefine.models.attention import reads_paths, slot_multiple
from jaxrefine.models.logits import logit_form
from jaxrefine.sampling.engine import Ask, Draw, Engine
from jaxrefine.sampling.policies import Policy
from jaxrefine.scoring.objectives import Objective
from jaxrefine.scoring.reference import make_score
from jaxrefine.scoring.scorers import Scores
from jaxrefine.typing import Array, Float

Ids = tuple[int, ...]
Likelihood = tuple[float, bool]
"""Log-probability of a continuation, and whether greedy decoding would write it."""

ROWS, SLOTS = 8, 512
"""Rows a device and step, and tokens of a row unless a context with its continuations is longer."""


class GreedySequence(nn.Module):
    """Σ_t log p(token t), and as ``scores`` how many of the tokens are not the likeliest."""

    def __call__(self, model: Any, hidden: Float[Array, "B S D"], batch: PackedBatch) -> Scores:
        """Scores every candidate."""
        B, T = batch.sources.shape
        G, N = batch.labels.shape[1:]
        predicting = jnp.take_along_axis(hidden, jnp.asarray(batch.sources)[..., None], axis=1).reshape(B * T, -1)
        states, embedding, options = logit_form(model).folded(predicting)
        targets, leaves = jnp.asarray(batch.targets).reshape(-1), jnp.asarray(batch.leaves)
        logprobs = token_logprobs(states, embedding, targets, **options)
        missed = (likeliest(states, embedding) != targets).astype(jnp.float32)

        def sums(values: Array) -> jax.Array:
            row = lambda of, leaf: jax.ops.segment_sum(of, leaf, G * N)  # noqa: E731
            where = leaves >= 0
            kept = jnp.where(where, jnp.asarray(values).reshape(B, T), 0.0)
            return jax.vmap(row)(kept, jnp.where(where, leaves, 0)).reshape(B, G, N)

        return Scores(scores=sums(missed), sums=sums(logprobs))


def likeliest(hidden: Float[Array, "M D"], embedding: Float[Array, "V D"]) -> jax.Array:
    """The token of the largest logit of each hidden state, the first of equals; chunk by chunk, never [M V].

    >>> likeliest(jnp.eye(2), jnp.array([[0.0, 3.0], [1.0, 2.0]])).tolist()
    [1, 0]
    """
    rows = default_chunk_size(hidden.shape[0], embedding.shape[0])
    chunks = -(-hidden.shape[0] // rows)
    padded = jnp.pad(jnp.asarray(hidden), ((0, chunks * rows - hidden.shape[0]), (0, 0)))
    weights = jnp.asarray(embedding).astype(hidden.dtype)

    def one(chunk: jax.Array) -> jax.Array:
        over = (((1,), (1,)), ((), ()))
        return jnp.argmax(jax.lax.dot_general(chunk, weights, over, preferred_element_type=jnp.float32), axis=1)

    return jax.lax.map(one, padded.reshape(chunks, rows, -1)).reshape(-1)[: hidden.shape[0]]


class Likelihoods:
    """Likelihoods of continuations of contexts, as tokens; a context is computed once for all its continuations.

    Args:
        model: a decoder.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._score = make_score(Objective(model=model.model, scorer=GreedySequence()), mesh=model.mesh)

    def __call__(self, pairs: Sequence[tuple[Ids, Ids]], description: str = "likelihoods") -> list[Likelihood]:
        """Of each pair of context and continuation, in order.

        A context that does not fit with its continuation loses its start; a continuation longer than the model's
        positions loses its start too, as in lm-eval's own models.

        Raises:
            ValueError: an empty context or continuation.
        """
        room = self._model.model.config.max_positions
        asked: dict[Ids, dict[Ids, None]] = {}
        kept = []
        cut = 0
        for context, continuation in pairs:
            if not context or not continuation:
                raise ValueError(f"a context and a continuation are wanted, got {context} and {continuation}")
            # the last token is predicted and not read: one more than the positions is there to be scored
            tail = continuation[-room:]
            head = context[-max(1, room + 1 - len(tail)) :]
            cut += (head, tail) != (context, continuation)
            asked.setdefault(head, {})[tail] = None
            kept.append((head, tail))
        if cut:
            say(f"{cut} of {len(pairs)} contexts are longer than {room} tokens and lose their start")
        found = self._scored([(head, tuple(tails)) for head, tails in asked.items()], description)
        return [found[pair] for pair in kept]

    def _scored(
        self, asked: Sequence[tuple[Ids, tuple[Ids, ...]]], description: str
    ) -> dict[tuple[Ids, Ids], Likelihood]:
        groups = [TokenGroup(number, head, tails) for number, (head, tails) in enumerate(asked)]
        model = self._model.model
        packing = PackingConfig.fit(
            groups, rows=ROWS * self._model.num_shards, slots=SLOTS,
            expand=reads_paths(model), multiple=slot_multiple(model),
        )  # fmt: skip
        found: dict[tuple[Ids, Ids], Likelihood] = {}
        with progress(len(groups), description, unit="contexts") as bar:
            for batch in pack(groups, packing):
                scores = jax.device_get(self._score({"model": self._model.params}, batch))
                sums, missed = unpack(scores.sums, batch), unpack(scores.scores, batch)
                for number, values in sums.items():
                    head, tails = asked[number]
                    for place, tail in enumerate(tails):
                        found[head, tail] = float(values[place]), float(missed[number][place]) == 0.0
                bar.advance(len(sums))
        return found


def windows(tokens: Ids, prefix: int, room: int) -> list[tuple[Ids, Ids]]:
    """Every token predicted once, each window of ``room`` tokens after at least one that is only read.

    >>> windows((1, 2, 3, 4, 5), 0, 2)
    [((0,), (1, 2)), ((2,), (3, 4)), ((3, 4), (5,))]
    """
    found = []
    for start in range(0, len(tokens), room):
        end = min(start + room, len(tokens))
        before = tokens[max(0, end - room - 1) : start] if start else (prefix,)
        found.append((before, tokens[start:end]))
    return found


def harness_model(model: LoadedModel, *, slots: int = 64, max_new_tokens: int = 256) -> Any:
    """The model as an ``lm_eval.api.model.LM``, for ``lm_eval.simple_evaluate(model=…)``.

    Contexts begin with BOS where the tokenizer has one. Texts of a context are the engine's, cut at the first of the
    task's stop strings.

    Args:
        model: a decoder with its tokenizer.
        slots: texts that grow at once.
        max_new_tokens: of a text, where the task does not say.

    Raises:
        ImportError: lm-eval is not installed.
    """
    from lm_eval.api.model import TemplateLM

    tokenizer, room = model.tokenizer, model.model.config.max_positions
    likelihoods = Likelihoods(model)

    class Harness(TemplateLM):
        """Ours, asked by lm-eval."""

        @property
        def eot_token_id(self) -> int:
            return tokenizer.eos_id

        @property
        def prefix_token_id(self) -> int:
            return tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id

        @property
        def tokenizer_name(self) -> str:
            return model.digest

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            ids, bos = tokenizer.encode(string), tokenizer.bos_id
            if bos is None or add_special_tokens is False or ids[:1] == [bos]:
                return ids
            return [bos, *ids]

        def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[Likelihood]:
            return likelihoods([(tuple(context), tuple(told)) for _, context, told in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            parts = [
                windows(tuple(self.tok_encode(text, add_special_tokens=False)), self.prefix_token_id, room)
                for (text,) in (request.args for request in requests)
            ]
            flat = iter(likelihoods([pair for part in parts for pair in part], "rolling likelihoods"))
            return [math.fsum(next(flat)[0] for _ in part) for part in parts]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            asked = [(context, _settled(options, max_new_tokens)) for context, options in (r.args for r in requests)]
            texts: list[str] = [""] * len(asked)
            for limit in sorted({limit for _, (limit, _, _) in asked}):
                places = [place for place, (_, (of, _, _)) in enumerate(asked) if of == limit]
                for place, text in zip(places, self._texts([asked[p] for p in places], limit), strict=True):
                    texts[place] = text
            return texts

        def _texts(self, asked: Sequence[tuple[str, tuple[int, Policy, Ends]]], limit: int) -> list[str]:
            engine = Engine(
                model.model.clone(attention="dense"), model.params, eos_ids=tokenizer.eos_ids, key=jax.random.key(0),
                max_new_tokens=limit, slots=min(slots, len(asked)), columns=1, mesh=model.mesh,
            )  # fmt: skip
            asks = [
                Ask(id=place, prompt=tuple(self.tok_encode(context))[limit - room :], draws=(Draw(0, policy),))
                for place, (context, (_, policy, _)) in enumerate(asked)
            ]
            texts = [""] * len(asked)
            with progress(len(asked), "texts", unit="contexts") as bar:
                for place, [sample] in engine.run(asks):
                    texts[place] = _until(tokenizer.decode(sample.content), asked[place][1][2])
                    bar.advance()
            return texts

    return Harness()


Ends = tuple[str, ...]


def _settled(options: Mapping[str, Any], max_new_tokens: int) -> tuple[int, Policy, Ends]:
    """Limit, policy and stop strings of a request's options, by lm-eval's own names."""
    limit = next((options[name] for name in ("max_gen_toks", "max_new_tokens", "max_tokens") if name in options), None)
    until = options.get("until") or ()
    warm = float(options.get("temperature") or 0.0)
    if not options.get("do_sample", warm > 0):
        warm = 0.0
    elif not warm:
        warm = 1.0
    top_k, top_p = (int(options.get("top_k") or 0), float(options.get("top_p") or 1.0)) if warm else (0, 1.0)
    policy = Policy(temperature=warm, top_k=top_k, top_p=top_p)
    return int(limit or max_new_tokens), policy, (until,) if isinstance(until, str) else tuple(until)


def _until(text: str, ends: Ends) -> str:
    """The text before the first of the stop strings.

    >>> _until("a. b; c", ("c", ";"))
    'a. b'
    """
    places = [text.find(end) for end in ends if end]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of one task's results by metric, without names and standard errors' "N/A"."""
    return {
        name: float(value)
        for name, value in results.items()
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)
    }
