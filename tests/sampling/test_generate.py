"""Candidates: what they may depend on, when they end, and that their log-probs are the model's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.losses.logprobs import token_logprobs
from jaxrefine.sampling import growth
from jaxrefine.sampling.generate import generate, iterate
from jaxrefine.sampling.policies import Greedy, Policy
from tests.models.mechanisms import MECHANISMS
from tests.models.tiny import CONFIG, CONFIGS, apart, layout, logits, make, trunk

EOS = 2
PROMPTS = [[1, 5, 9], [1, 44], [1, *range(3, 40)], [1, 8, 8, 30, 12], [1]]
DECODER, PARAMS = make()
OPTIONS = {
    "num_candidates": 3,
    "max_new_tokens": 12,
    "policy": Policy(),
    "eos_id": EOS,
    "key": jax.random.key(7),
    "batch_size": 2,
}


def run(prompts=PROMPTS, *, decoder=DECODER, params=PARAMS, **options):
    return generate(decoder, params, prompts, **(OPTIONS | options))


def texts(samples):
    return [[(sample.tokens, sample.finished) for sample in candidates] for candidates in samples]


def flat(samples):
    return [sample for candidates in samples for sample in candidates]


BASE = run()


@pytest.mark.parametrize("policy", [Policy(), Policy(temperature=0.7, top_p=0.8), Policy(top_k=5), Greedy])
def test_logprobs_are_those_of_the_packed_scorer(policy):
    samples = run(policy=policy)
    groups = [
        (prompt, [sample.tokens for sample in candidates]) for prompt, candidates in zip(PROMPTS, samples, strict=True)
    ]
    row, chains, _ = layout(groups, 320)
    hidden = trunk(DECODER.clone(attention="expand"), PARAMS, row)[0]
    embedding = DECODER.apply({"params": PARAMS}, method="output_embedding")
    starts = [P for P in map(len, PROMPTS) for _ in range(3)]
    for chain, P, sample in zip(chains, starts, flat(samples), strict=True):
        sources = jnp.asarray(chain[P - 1 : -1])
        expected = token_logprobs(hidden[sources], embedding, jnp.asarray(sample.tokens))
        np.testing.assert_allclose(sample.logprobs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "multi-query, biases",
        "prescaled linear bias, window in one layer",
        "local base, scaled global one, normalised heads",
        "post-norm, projected embedding",
    ],
)
def test_greedy_equals_the_model_read_again_from_the_start(name):
    decoder, params = make((CONFIGS | MECHANISMS)[name])
    [[sample]] = run([PROMPTS[0]], decoder=decoder, params=params, policy=Greedy, num_candidates=1, max_new_tokens=30)
    text = [*PROMPTS[0], *sample.tokens]
    best = np.asarray(logits(decoder, params, trunk(decoder, params, apart([text])))[0].argmax(-1))
    assert tuple(best[2:-1]) == sample.tokens


@pytest.mark.parametrize("batch_size", [1, 5, 7, None])
def test_a_text_does_not_depend_on_the_batch_size(batch_size):
    assert texts(run(batch_size=batch_size)) == texts(BASE)


@pytest.mark.parametrize("number", [1, 5])
def test_a_text_does_not_depend_on_the_number_of_candidates(number):
    for few, many in zip(texts(run(num_candidates=number)), texts(BASE), strict=True):
        assert few[:3] == many[:number]


def test_a_text_does_not_depend_on_the_other_prompts():
    chosen = [3, 0]
    some = run([PROMPTS[index] for index in chosen], prompt_ids=chosen)
    assert texts(some) == [texts(BASE)[index] for index in chosen]


def test_a_text_does_not_depend_on_the_room_after_it():
    longer = run(max_new_tokens=50, prompts=PROMPTS[:2])
    for one, other in zip(flat(BASE[:2]), flat(longer), strict=True):
        assert other.tokens[: len(one.tokens)] == one.tokens


def test_a_text_depends_on_the_id_of_its_prompt_and_on_the_key():
    assert texts(run(prompt_ids=range(5, 10))) != texts(BASE)
    assert texts(run(key=jax.random.key(8))) != texts(BASE)


def test_candidates_of_a_prompt_differ():
    assert len({sample.tokens for sample in BASE[0]}) > 1


def test_a_finished_sample_ends_with_its_only_eos_and_a_cut_one_has_none():
    assert {sample.finished for sample in flat(BASE)} == {True, False}
    for sample in flat(BASE):
        assert len(sample.logprobs) == len(sample.tokens)
        assert sample.tokens.count(EOS) == sample.finished
        assert sample.content == tuple(token for token in sample.tokens if token != EOS)
        assert sample.finished == (sample.tokens[-1] == EOS)
        assert sample.finished or len(sample.tokens) == 12


@pytest.fixture
def segments(monkeypatch):
    """The state after every segment of every batch."""
    seen, advance = [], growth.advance

    def keep(*args, **options):
        seen.append(advance(*args, **options))
        return seen[-1]

    monkeypatch.setattr(growth, "advance", keep)
    return seen


def test_generation_stops_when_every_candidate_is_done(segments):
    head = jnp.zeros_like(PARAMS["head"]["kernel"]).at[EOS].set(PARAMS["head"]["kernel"][EOS])
    samples = flat(run(params={**PARAMS, "head": {"kernel": head}}, max_new_tokens=200, batch_size=5))
    assert int(segments[-1].step) == max(len(sample.tokens) for sample in samples) - 1 < 199


def test_rows_that_fill_a_batch_do_not_prolong_it(segments):
    [candidates] = run([PROMPTS[0]], batch_size=4, eos_id=49)
    assert int(segments[-1].step) == max(len(sample.tokens) for sample in candidates) - 1


@pytest.mark.parametrize(
    ("number", "chosen", "shape"), [(8, [1], (1, 2)), (1, [0, 1, 2, 3, 4], (1, 1))], ids=["candidates", "prompts"]
)
def test_the_last_go_on_in_a_narrower_batch_with_the_same_texts(segments, monkeypatch, number, chosen, shape):
    options = {"num_candidates": number, "batch_size": len(chosen), "max_new_tokens": 33}
    options |= {"eos_id": 49, "prompt_ids": chosen}  # a likely token: many end early, some late
    narrow = run([PROMPTS[index] for index in chosen], **options)
    assert shape in {state.latest.shape for state in segments}
    monkeypatch.setattr(growth, "narrower", lambda rows, columns: (0, 0))
    wide = run([PROMPTS[index] for index in chosen], **options)
    assert texts(narrow) == texts(wide)
    for one, other in zip(flat(narrow), flat(wide), strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-4, atol=1e-5)


def test_other_parameters_temperatures_and_keys_compile_nothing():
    run(policy=Policy(temperature=0.9, top_p=0.9))
    compiled = growth.start._cache_size(), growth.advance._cache_size()
    other = jax.tree.map(lambda leaf: leaf * 1.01, PARAMS)
    run(params=other, policy=Policy(temperature=1.1, top_p=0.7), key=jax.random.key(3))
    run(decoder=DECODER.clone(attention="expand", remat="full"), policy=Policy(temperature=0.9, top_p=0.9))
    assert compiled == (growth.start._cache_size(), growth.advance._cache_size())


def test_prompts_left_out_later_leave_the_rest_as_they_were():
    first = dict([next(iterate(DECODER, PARAMS, PROMPTS, **OPTIONS))])
    rest = [index for index in range(5) if index not in first]
    again = dict(iterate(DECODER, PARAMS, [PROMPTS[index] for index in rest], prompt_ids=rest, **OPTIONS))
    whole = first | {rest[index]: samples for index, samples in again.items()}
    assert texts([whole[index] for index in range(5)]) == texts(BASE)


def test_progress_counts_prompts():
    seen = []
    run(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(1, 6)]


def test_bfloat16_decodes_too():
    [[sample]] = run([PROMPTS[0]], decoder=DECODER.clone(dtype=jnp.bfloat16), num_candidates=1)
    assert np.isfinite(sample.logprobs).all()


def test_no_prompts_no_samples():
    assert run([]) == []


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, "id 1 is empty"),
        ([[1] * 250], {}, "250 tokens; with max_new_tokens = 12 and max_positions = 256 it may have 244"),
        ([[1]], {"prompt_ids": [1, 2]}, "2 prompt_ids for 1 prompts"),
        ([[1]], {"prompt_ids": [2**32]}, "outside"),
        ([[1]], {"num_candidates": 0}, "num_candidates is 0"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens is 0"),
        ([[1]], {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_nonsense_is_refused_by_name(prompts, options, message):
    with pytest.raises(ValueError, match=message):
        run(prompts, **options)


@pytest.mark.torch
@pytest.mark.slow
def test_greedy_equals_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=CONFIG.vocab_size,
            hidden_size=CONFIG.width,
            num_hidden_layers=CONFIG.num_layers,
            num_attention_heads=CONFIG.num_heads,
            num_key_value_heads=CONFIG.num_kv_heads,
            head_dim=CONFIG.head_width,
            intermediate_size=CONFIG.hidden_width,
            rms_norm_eps=CONFIG.norm_eps,
            rope_theta=CONFIG.rope_theta,
            tie_word_embeddings=False,
        )
    ).eval()
    names = {
        "attention_norm.scale": "input_layernorm.weight",
        "attention.query.kernel": "self_attn.q_proj.weight",
        "attention.key.kernel": "self_attn.k_proj.weight",
        "attention.value.kernel": "self_attn.v_proj.weight",
        "attention.out.kernel": "self_attn.o_proj.weight",
        "feed_forward_norm.scale": "post_attention_layernorm.weight",
        "feed_forward.gate.kernel": "mlp.gate_proj.weight",
        "feed_forward.up.kernel": "mlp.up_proj.weight",
        "feed_forward.down.kernel": "mlp.down_proj.weight",
    }
    tensors = {
        "model.embed_tokens.weight": PARAMS["embed"]["embedding"],
        "model.norm.weight": PARAMS["norm"]["scale"],
        "lm_head.weight": PARAMS["head"]["kernel"],
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(PARAMS["layers"]):
        name = names[".".join(entry.key for entry in path)]
        tensors |= {f"model.layers.{index}.{name}": leaf[index] for index in range(CONFIG.num_layers)}
    model.load_state_dict({name: torch.tensor(np.array(tensor)) for name, tensor in tensors.items()})
    samples = run(policy=Greedy, num_candidates=1, max_new_tokens=40)
    for prompt, [sample] in zip(PROMPTS, samples, strict=True):
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=40,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        assert tuple(out[0, len(prompt) :].tolist()) == sample.tokens
