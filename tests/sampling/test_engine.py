"""The engine gives the texts of ``generate``, whatever its slots, order, mesh and interruptions, and never idles."""

from __future__ import annotations

import dataclasses
import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.models.cache import KeyValues
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling import engine_steps
from jaxrefine.sampling.engine import Ask, Draw, Engine
from jaxrefine.sampling.generate import generate
from jaxrefine.sampling.growth import cache_lengths
from jaxrefine.sampling.policies import Greedy, Policy, choose
from jaxrefine.sharding import MeshConfig, make_mesh
from tests.models.mechanisms import MECHANISMS
from tests.models.tiny import CONFIG, apart, logits, trunk


def random_params(decoder):
    """Parameters far from their initial values, from NumPy: nothing to compile."""
    rng, row = np.random.default_rng(1), np.zeros((1, 4), np.int32)
    shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), row, row, row + 4, method="trunk"))["params"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray((path[-1].key == "scale") + 0.3 * rng.standard_normal(leaf.shape), jnp.float32),
        shapes,
    )


EOS, KEY = 29, jax.random.key(7)  # a likely token: many texts end early, some late
PROMPTS = [(1, 5, 9), (1, 44), (1, *range(3, 40)), (1, 8, 8, 30, 12), (1,)]
DECODER = Decoder(CONFIG, dtype=jnp.float32, attention="dense")
PARAMS = random_params(DECODER)
OPTIONS = {"eos_ids": (EOS,), "key": KEY, "max_new_tokens": 12, "slots": 3, "columns": 1}


def asks(prompts=PROMPTS, number=3, policies=None, **fields):
    draws = tuple(Draw(n, policy) for n, policy in enumerate(policies or [Policy()] * number))
    return [Ask(id=id, prompt=prompt, draws=draws, **fields) for id, prompt in enumerate(prompts)]


def engine(decoder=DECODER, params=PARAMS, **options):
    return Engine(decoder, params, **(OPTIONS | options))


def run(given=None, **options):
    given = asks() if given is None else given
    found = dict(engine(**options).run(given))
    return [found[index] for index in range(len(given))]


def reference(decoder=DECODER, params=PARAMS, prompts=PROMPTS, **options):
    defaults = {"num_candidates": 3, "max_new_tokens": 12, "policy": Policy(), "eos_id": EOS, "key": KEY}
    return generate(decoder, params, prompts, **(defaults | options))


def texts(samples):
    return [[(sample.tokens, sample.finished) for sample in candidates] for candidates in samples]


def flat(samples):
    return [sample for candidates in samples for sample in candidates]


BASE = run()


def test_the_base_case_has_texts_that_end_and_texts_that_are_cut():
    assert {sample.finished for sample in flat(BASE)} == {True, False}
    assert len({len(sample.tokens) for sample in flat(BASE)}) > 4


@pytest.mark.parametrize(
    "name",
    [
        "sandwich, caps, windows by turns",
        "prescaled linear bias, window in one layer",
        "post-norm, projected embedding",
        "decaying rotations, unit queries and keys",
    ],
)
def test_candidates_at_steps_of_their_own_decode_as_candidates_in_step(name):
    config = MECHANISMS[name]
    decoder, rng = Decoder(config, dtype=jnp.float32, attention="dense"), np.random.default_rng(0)

    def some(*shape):
        return KeyValues(*rng.standard_normal((2, *shape)).astype(np.float32))

    C, N, P, R, layers, heads, width = 2, 2, 7, 9, config.num_layers, config.num_kv_heads, config.head_width
    of_prompts, own = some(layers, C, heads, P, width), some(layers, C, N, heads, R, width)
    tokens, steps, lengths = rng.integers(0, 60, (C, N)).astype(np.int32), np.array([[3, 6], [6, 3]]), np.array([7, 4])

    @jax.jit
    def decode(params, *caches):
        def at(step):
            return decoder.apply(
                {"params": params}, tokens, jnp.asarray(step), caches[0], lengths, caches[1], method="decode"
            )

        return at(steps), at(3), at(6)

    (hidden, cache), *in_step = decode(random_params(decoder), of_prompts, own)
    for step, (expected, its_cache) in zip((3, 6), in_step, strict=True):
        np.testing.assert_allclose(hidden[steps == step], expected[steps == step], rtol=1e-5, atol=1e-5)
        for found, kept in zip(jax.tree.leaves(cache), jax.tree.leaves(its_cache), strict=True):
            np.testing.assert_allclose(found[:, steps == step], kept[:, steps == step], rtol=1e-5, atol=1e-5)


def test_texts_and_log_probs_are_those_of_generate():
    expected = reference()
    assert texts(BASE) == texts(expected)
    for one, other in zip(flat(BASE), flat(expected), strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-4, atol=1e-5)


@functools.cache
def greedy():
    """A long greedy text of the first prompt."""
    [[sample]] = run(asks(PROMPTS[:1], policies=[Greedy]), eos_ids=(2,), max_new_tokens=50)
    return sample


def test_a_long_text_goes_on_in_a_wider_part_of_the_cache():
    assert cache_lengths(49) == [32, 49]
    sample = greedy()
    text = [*PROMPTS[0], *sample.tokens]
    best = np.asarray(logits(DECODER, PARAMS, trunk(DECODER, PARAMS, apart([text])))[0].argmax(-1))
    assert tuple(best[2:-1]) == sample.tokens
    assert len(sample.tokens) == 50


@pytest.mark.parametrize(("slots", "columns"), [(1, 8), (8, 3)])
def test_a_text_does_not_depend_on_the_slots(slots, columns):
    assert texts(run(slots=slots, columns=columns)) == texts(BASE)


def test_a_text_does_not_depend_on_the_order_of_the_queue():
    order = [3, 0, 4, 2, 1]
    found = run([asks()[index] for index in order])
    assert [found[order.index(index)] for index in range(5)] == BASE  # same slots: log-probs to the last bit


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_after_an_interruption_comes_out_to_the_last_bit(seed):
    stream, kept = engine().run(asks()), {}
    for _ in range(1 + seed):
        index, samples = next(stream)
        kept[index] = samples
    left = [index for index in range(5) if index not in kept]
    random.Random(seed).shuffle(left)
    again = run([asks()[index] for index in left])
    assert [(kept | dict(zip(left, again, strict=True)))[index] for index in range(5)] == BASE


def test_rows_split_over_eight_devices_give_the_same_texts():
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    split = engine(mesh=mesh, slots=8)
    found = dict(split.run(asks()))
    assert split.rows == 8
    assert texts([found[index] for index in range(5)]) == texts(BASE)


def test_candidates_of_one_prompt_may_be_greedy_and_of_several_temperatures():
    policies = [Greedy, Policy(), Policy(temperature=0.3)]
    found = run(asks(policies=policies))
    assert found[0][0].tokens == greedy().tokens[: len(found[0][0].tokens)]
    for n, policy in list(enumerate(policies))[1:]:
        assert [row[n] for row in texts(found)] == [row[n] for row in texts(reference(policy=policy))]


def test_each_slot_is_truncated_as_its_own_policy_says():
    policies = [Policy(top_k=5, top_p=0.9), Policy(top_k=1, top_p=1.0), Policy(temperature=2.0, top_k=9, top_p=0.3)]
    form = policies[0].form
    plan = engine_steps.Plan(decoder=DECODER, form=form, mixed=False, mesh=None)
    values = [dataclasses.replace(policy, top_p=min(policy.top_p, 0.99)).values for policy in policies]
    keys, rng = jax.random.split(jax.random.key(3), (1, 3)), np.random.default_rng(0)
    draws = engine_steps.Draws(
        keys=keys,
        limit=jnp.ones((1, 3), jnp.int32),
        greedy=jnp.zeros((1, 3), bool),
        **{name: jnp.stack([each[name] for each in values])[None] for name in values[0]},
    )
    pick, one = jax.jit(lambda *given: engine_steps._pick(plan, *given)), jax.jit(functools.partial(choose, form))
    for count in range(8):
        logits = jnp.asarray(2 * rng.standard_normal((1, 3, 40)), jnp.float32)
        token, logprob = pick(logits, draws, jnp.full((1, 3), count))
        for n in range(3):
            expected = one(values[n], logits[:, n], jax.random.fold_in(keys[0, n], count)[None])
            assert int(token[0, n]) == int(expected[0])
            kept = jax.nn.log_softmax(logits[0, n])[token[0, n]]
            np.testing.assert_allclose(logprob[0, n], kept, rtol=1e-5)


def test_an_ask_may_want_shorter_texts_than_the_engine_has_room_for():
    for short, whole in zip(flat(run(asks(max_new_tokens=5))), flat(BASE), strict=True):
        assert short.tokens == whole.tokens[:5]
        assert short.finished == (whole.finished and len(whole.tokens) <= 5)


def test_each_of_several_ends_ends_a_text():
    found = flat(run(eos_ids=(EOS, 22, 58)))
    assert {sample.tokens[-1] for sample in found if sample.finished} > {EOS}
    for sample, whole in zip(found, flat(BASE), strict=True):
        assert sample.tokens == whole.tokens[: len(sample.tokens)]
        assert not {EOS, 22, 58} & set(sample.tokens[:-1])


def test_a_slot_takes_its_next_text_without_waiting_for_the_others():
    many = [(1, 5 + n) for n in range(24)]
    made = engine(eos_ids=(EOS, 22, 58, 31, 12))
    lengths = [len(samples[0].tokens) for _, samples in sorted(made.run(asks(many, number=1)))]
    in_batches = sum(max(lengths[first : first + 3]) for first in range(0, 24, 3))
    assert sum(lengths) / 3 <= made.counts.steps < 0.9 * in_batches
    assert made.counts.tokens == sum(lengths)


def test_a_prompt_is_read_once_and_idle_rows_help_with_its_candidates():
    made = engine()
    [(_, samples)] = made.run(asks(PROMPTS[:1], number=7))
    assert texts([samples[:3]]) == texts(BASE[:1])
    assert len({sample.tokens for sample in samples}) > 3
    assert (made.counts.prompts, made.counts.copies, made.counts.texts) == (1, 2, 7)


def test_asks_can_be_added_while_others_are_taken():
    made, given, found = engine(), asks(), {}
    made.add(given[0])
    for ticket, samples in made.finished():
        found[ticket] = samples
        if len(found) < 5:
            assert made.add(given[len(found)]) == len(found)
    assert [found[index] for index in range(5)] == BASE


def test_other_prompts_policies_parameters_and_keys_compile_nothing():
    programs = [engine_steps.empty, engine_steps.admit, engine_steps.begin, engine_steps.advance]
    run()
    compiled = [program._cache_size() for program in programs]
    other = [(1, 3, n) for n in range(9)]
    run(
        asks(other, policies=[Policy(temperature=0.4)] * 3, max_new_tokens=7),
        params=jax.tree.map(lambda leaf: leaf * 1.01, PARAMS),
        decoder=DECODER.clone(attention="expand", remat="full"),
        key=jax.random.key(9),
    )
    assert compiled == [program._cache_size() for program in programs]


def test_bfloat16_stays_bfloat16_from_step_to_step():
    decoder = DECODER.clone(dtype=jnp.bfloat16)
    plan = engine_steps.Plan(decoder=decoder, form=Policy().form, mixed=False, mesh=None)
    sizes = {"rows": 2, "columns": 2, "width": 32, "room": 6}
    slots = jax.eval_shape(lambda: engine_steps.empty(decoder, None, **sizes))
    one, each = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.int32)
    flag = jax.ShapeDtypeStruct((), bool)
    program = functools.partial(engine_steps.advance, plan, size=5)
    after, _ = jax.eval_shape(program, PARAMS, slots, each, each, flag, one, one)
    assert jax.tree.leaves(after) == jax.tree.leaves(slots)
    assert after.cache.keys.dtype == after.hidden.dtype == jnp.bfloat16


ASK = asks()[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ()}, "the ask with id 0 has no prompt"),
        ({"prompt": (1,) * 250}, "250 tokens; with max_new_tokens = 12 and max_positions = 256 it may have 244"),
        ({"draws": ()}, "has no draws"),
        ({"draws": (Draw(1, Policy()), Draw(1, Greedy))}, "equal numbers"),
        ({"draws": (Draw(-1, Policy()),)}, "outside 0"),
        ({"id": 2**32}, "outside 0"),
        ({"draws": (Draw(0, Policy(top_k=3)), Draw(1, Policy()))}, "make that two asks"),
        ({"max_new_tokens": 13}, "wants max_new_tokens = 13; the engine was made for 1 … 12"),
    ],
)
def test_an_ask_that_cannot_be_is_refused_with_the_reason(changes, message):
    with pytest.raises(ValueError, match=message):
        engine().add(dataclasses.replace(ASK, **changes))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"slots": 0}, "slots is 0"), ({"columns": 0}, "columns is 0"), ({"eos_ids": ()}, "eos_ids is empty")],
)
def test_an_engine_of_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        engine(**options)


def test_a_second_run_waits_for_the_first():
    made = engine()
    made.add(ASK)
    with pytest.raises(RuntimeError, match="still queued"):
        next(made.run([ASK]))
