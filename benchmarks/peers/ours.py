"""Our side: the train step of ``jaxrefine.training`` and the engine of ``jaxrefine.sampling``, as a user calls them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers.worker import Case, Turns, serve, tokens_of
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.packing import PackingConfig, TokenGroup, pack
from jaxrefine.models.attention import reads_paths
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.engine import Ask, Draw, Engine
from jaxrefine.sampling.policies import Policy
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.scoring.reference import make_score, score_groups
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import init_state
from jaxrefine.training.step import make_train_step

DISTRIBUTIONS = ("jaxrefine", "jax", "jaxlib", "flax", "optax")
OBJECTIVES = {
    "dpo": ObjectiveConfig(loss="dpo", loss_options={"beta": 0.1}, per="pair"),
    "ranking": ObjectiveConfig(loss="margin_ranking", loss_options={"gaps": "mean"}, mle_weight=1.0),
    "sft": ObjectiveConfig(mle_weight=1.0, mle_normalize="token"),
}
"""By the name of the task: DPO over pairs, Tuna's ranking of N, the likelihood of a batch's tokens."""


def groups_of(case: Case) -> list[TokenGroup]:
    """DPO: the first response above all others, which are equal. Ranking: each above the next."""
    prompts, responses = tokens_of(case)
    N = case["candidates"]
    labels = tuple(float(n == 0) for n in range(N)) if case["task"] == "dpo" else tuple(float(N - n) for n in range(N))
    return [
        TokenGroup(number, tuple(prompt), tuple(map(tuple, some)), labels=labels)
        for number, (prompt, some) in enumerate(zip(prompts, responses, strict=True))
    ]


def lay_out(groups: list[TokenGroup], rows: int, *, expand: bool) -> tuple[PackingConfig, PackedBatch]:
    """All groups in one batch of ``rows`` full rows."""
    one = PackingConfig.fit(groups, rows=rows, multiple=1, expand=expand)
    slots = -(-len(groups) // rows) * one.slots
    packing = PackingConfig.fit(groups, rows=rows, multiple=1, slots=slots, expand=expand)
    [batch] = pack(groups, packing)
    return packing, batch


def device_of(turns: Turns) -> str:
    """What the device is called; its memory is what will be reported, where it keeps count."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        turns.on_device(lambda: int(device.memory_stats()["peak_bytes_in_use"]))
    return str(device.device_kind)


def train(case: Case, turns: Turns) -> None:
    """Steps on one batch: forward, backward, clipping, AdamW, metrics."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    config, params = load_pretrained(case["model"], mesh=mesh)
    decoder = Decoder(config, dtype=jnp.dtype(case["dtype"]), attention=case["attention"], remat=case["remat"])
    objective = make_objective(OBJECTIVES[case["task"]], decoder)
    groups = groups_of(case)
    rows = min(case["rows"], len(groups))
    packing, host = lay_out(groups, rows, expand=reads_paths(decoder))
    variables = {"model": params}
    if case["task"] == "dpo":  # the reference's scores are a stage of their own: once, before training
        scores = score_groups(make_score(objective), variables, groups, packing, read="sums")
        groups = [dataclasses.replace(group, reference_scores=tuple(map(float, scores[group.group_id])))
                  for group in groups]  # fmt: skip
        [host] = pack(groups, packing)
    optimizer = make_optimizer(
        OptimizerConfig(
            learning_rate=case["learning_rate"], schedule="constant", clip_norm=case["clip_norm"], weight_decay=0.0
        ),
        1_000_000,
    )
    state = init_state(variables, optimizer, jax.random.key(case["seed"]), mesh=mesh)
    del params, variables
    batch = to_device(host, mesh=mesh, num_microbatches=1)
    step = make_train_step(objective, optimizer, mesh=mesh)
    compiled = step.compile(state, batch)
    turns.ready(
        device=device_of(turns),
        distributions=DISTRIBUTIONS,
        compile_seconds=compiled.compile_seconds,
        step_bytes=compiled.peak_memory_bytes,
        slots=list(host.tokens.shape),
    )
    while True:
        turns.begin()
        state, metrics = step(state, batch)
        jax.block_until_ready(state)
        turns.end(float(metrics["loss"]))


def sample(case: Case, turns: Turns) -> None:
    """All candidates of all prompts, again and again; before that one greedy text, to compare."""
    config, params = load_pretrained(case["model"])
    prompts, _ = tokens_of(case)
    k, new = case["candidates"], case["new"]
    never = config.vocab_size  # no token: every text is as long

    def engine(slots: int) -> Engine:
        return Engine(
            Decoder(config, dtype=jnp.dtype(case["dtype"]), attention="dense"),
            params,
            eos_ids=(never,),
            key=jax.random.key(case["seed"]),
            max_new_tokens=new,
            slots=slots,
            columns=min(4, slots),
        )

    def texts(by: Engine, draws: tuple[Draw, ...], some: list[list[int]]) -> list[list[int]]:
        asks = [Ask(id=number, prompt=tuple(prompt), draws=draws) for number, prompt in enumerate(some)]
        found: dict[int, Any] = dict(by.run(asks))
        return [list(sample.tokens) for index in range(len(asks)) for sample in found[index]]

    greedy = texts(engine(1), (Draw(0, Policy(temperature=0)),), prompts[:1])[0]
    sampler, draws = engine(k * len(prompts)), tuple(Draw(number, Policy()) for number in range(k))
    turns.ready(device=device_of(turns), distributions=DISTRIBUTIONS, greedy=[int(token) for token in greedy])
    while True:
        turns.begin()
        found = texts(sampler, draws, prompts)
        turns.end(tokens=sum(map(len, found)))


def main(case: Case, turns: Turns) -> None:
    turns.imported()
    (sample if case["task"] == "sampling" else train)(case, turns)


if __name__ == "__main__":
    serve(main, "jaxrefine")
