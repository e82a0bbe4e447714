"""Plans of a tiny model on eight CPU devices that are taken for others: what is compiled, said and advised."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import pytest

from jaxrefine import cli, config
from jaxrefine.models.config import TransformerConfig
from jaxrefine.planning.memory import predict
from jaxrefine.planning.plan import Options, fine_tunings_of, make_plan, plan_setup
from jaxrefine.planning.remedies import remedies
from jaxrefine.planning.report import as_json, report
from jaxrefine.planning.setup import Setup, default_attention, with_training
from jaxrefine.planning.topology import parse_topology
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.training.finetuning import Finetuning

TINY = TransformerConfig(
    vocab_size=64, width=16, num_layers=2, num_heads=2, num_kv_heads=2, head_width=8, hidden_width=48
)
SETUP = Setup(
    training=Finetuning(
        objective=ObjectiveConfig(loss="margin_ranking", mle_weight=1.0), groups_per_step=16, max_prompt=8,
        max_response=8, slots=32,
    ),
    model=TINY,
    num_candidates=2,
)  # fmt: skip


def _topology(memory_bytes: int | None = None):
    found = parse_topology("h100x8")
    if memory_bytes is None:
        return found
    return dataclasses.replace(found, chip=dataclasses.replace(found.chip, memory_bytes=memory_bytes))


@pytest.fixture(scope="module")
def planned():
    return plan_setup(
        SETUP, jax.devices()[:8], _topology(), options=Options(), label=("mine", "train", "tiny"), say=lambda text: None
    )


def test_a_plan_compiles_the_very_step_and_finds_its_memory_and_collectives(planned):
    compiled = SETUP.made(jax.devices()[:8]).step.compile(planned.made.state, planned.made.batch)
    assert planned.compiled.memory.total == compiled.peak_memory_bytes == planned.need
    assert planned.compiled.memory.parameters == planned.predicted.parameters
    assert planned.compiled.memory.optimizer == planned.predicted.optimizer
    kinds = {item.kind for item in planned.compiled.sent}
    assert "all-gather" in kinds
    assert kinds & {"reduce-scatter", "all-reduce"}
    assert planned.fits
    assert planned.remedies == ()


def test_a_plan_compiles_the_samplers_programs_with_weights_in_bf16(planned):
    sampler = planned.sampler
    assert [program.name for program in sampler.programs] == ["prefill", "decode"]
    split = 2 * 64 * 16 + 2 * (4 * 16 * 16 + 3 * 16 * 48)
    for program in sampler.programs:
        assert program.weights == 2 * (split // 8 + 2 * 2 * 16 + 16)
        assert program.total >= program.weights + program.caches
    # keys and values of two layers: prompts [C K P H] and texts [C N K R-1 H], bf16, an eighth of the rows
    rows = sampler.rows // 8
    caches = 2 * 2 * 2 * 2 * 8 * rows * (sampler.prompt + sampler.columns * 7)
    assert sampler.roofline.read_bytes == sampler.programs[0].weights + caches


def test_a_report_says_what_was_found_and_that_nothing_was_measured(planned):
    said = report(planned)
    for part in ("mine, train: tiny on h100x8: fits", "8 × h100 (1×8), data 1 × fsdp 8 × tensor 1", "parameters",
                 "temporaries", "largest buffers:", "collectives of a step", "nothing was measured", "prefill",
                 "decode", "remat full, attention expand"):  # fmt: skip
        assert part in said
    assert "what would help" not in said


def test_a_plan_is_json_without_loss(planned):
    found = json.loads(json.dumps(as_json(planned)))
    assert found["compiled"]["memory"]["total"] == planned.need
    assert found["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1}
    assert found["fits"] is True
    assert found["roofline"]["step_seconds"] == planned.roofline.step_seconds
    assert [one["name"] for one in found["sampler"]["programs"]] == ["prefill", "decode"]


def test_what_does_not_fit_is_said_with_ranked_remedies():
    options = Options(compile_sampler=False)
    need = SETUP.made(jax.devices()[:8])
    total = need.step.compile(need.state, need.batch).peak_memory_bytes
    result = plan_setup(
        SETUP, jax.devices()[:8], _topology(total - 1), options=options, label=("mine", "train", "tiny")
    )
    assert not result.fits
    saves = [remedy.saves for remedy in result.remedies]
    assert saves == sorted(saves, reverse=True)
    assert min(saves) > 0
    said = report(result)
    assert "DOES NOT FIT" in said
    assert "what would help, predicted" in said
    assert result.remedies[0].change in said


def test_a_remedys_saving_is_the_difference_of_two_predictions():
    devices = jax.devices()[:8]
    found = {remedy.change: remedy for remedy in remedies(SETUP, devices)}
    halved = found["--microbatches 2"]
    before, after = (predict(setup, setup.made(devices)).total for setup in (SETUP, halved.setup))
    assert (halved.saves, halved.total) == (before - after, after)
    assert not any(change.startswith("--data") for change in found)  # the mesh has no data axis to give up
    assert not any("--remat none" in change for change in found)  # keeps more, saves nothing
    assert {remedy.setup.num_candidates for remedy in found.values()} == {2}


def test_a_search_compiles_the_fastest_first_and_ends_with_what_fits():
    options = Options(compile_sampler=False, compile_training=False, search=True)
    result = plan_setup(SETUP, jax.devices()[:8], _topology(), options=options, label=("mine", "train", "tiny"))
    assert [trial.fits for trial in result.trials] == [True]
    assert result.trials[0].setup.training.num_microbatches == 1
    assert result.trials[0].setup.remat != "full"
    assert "search, compiled, the fastest first" in report(result)


def test_changes_reach_nested_settings():
    changed = with_training(SETUP, optimizer__learning_rate=0.5, num_microbatches=4)
    assert changed.training.optimizer.learning_rate == 0.5
    assert changed.training.num_microbatches == 4
    assert SETUP.training.num_microbatches == 1


def test_the_precision_says_what_weights_and_moments_take():
    devices = jax.devices()[:8]
    short = dataclasses.replace(SETUP, precision="pure_bfloat16")
    kept = [predict(setup, setup.made(devices)).parameters for setup in (SETUP, short)]
    norms = (2 * 2 + 1) * 16  # stay in fp32, whole on each device
    assert kept[0] - kept[1] == 2 * (kept[0] // 4 - norms)
    assert short.made(devices).model.dtype == jax.numpy.bfloat16
    assert dataclasses.replace(SETUP, precision="float32").made(devices).model.dtype == jax.numpy.float32


def test_a_published_config_is_planned_with_the_size_in_its_name(monkeypatch):
    monkeypatch.setattr("jaxrefine.planning.plan.absent_devices", lambda topology: jax.devices()[:8])
    options = Options(compile_training=False, compile_sampler=False, training="sft")
    name = "tuna/llama_7b"
    found = make_plan(config.load(name), name, _topology(), options)
    assert (found.model, found.setup.model.width, found.setup.model.num_layers) == ("llama-7b", 4096, 32)


def test_a_backend_that_cannot_compute_a_model_is_replaced_and_that_is_said():
    odd = dataclasses.replace(TINY, head_width=6, width=12)
    name, remark = default_attention(parse_topology("h100x8"), odd, 32)
    assert name == "expand"
    assert remark.startswith("cudnn: ")


PLANNABLE = [
    name
    for name in config.shipped()
    if name.split("/")[0] in ("tuna", "math", "art", "zooter", "pandalm", "finetuning")
    and callable(getattr(config.load(name), "fine_tunings", None))
]


def test_every_system_has_configs_to_plan():
    assert {name.split("/")[0] for name in PLANNABLE} == {"tuna", "math", "art", "zooter", "pandalm", "finetuning"}


@pytest.mark.parametrize("name", [name for name in PLANNABLE if name != "zooter/decontaminate"])
def test_a_configs_fine_tunings_have_names_of_their_own_and_as_many_candidates_as_their_loss_needs(name: str):
    found = fine_tunings_of(config.load(name), name)
    assert len({item.name for item in found}) == len(found)
    for item in found:
        routes = item.training.objective.scorer == "router"
        contrasts = item.training.objective.loss is not None and not routes
        assert item.num_candidates == 0 if routes else item.num_candidates >= (2 if contrasts else 1)


def test_tunas_phases_are_planned_with_four_responses_and_the_original_one():
    found = {item.name: item.num_candidates for item in fine_tunings_of(config.load("tuna/llama_7b"), "tuna/llama_7b")}
    assert (found["sft"], found["p"], found["c"], found["proxy"]) == (1, 5, 5, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tuna/llama_7b"], "which hardware? Give --topology"),
        (["tuna/llama_7b", "--topolgy", "v5e-16"], "unknown flag '--topolgy'; did you mean '--topology'?"),
        (["tuna/llama_7b", "--topology", "v5g-16"], "unknown chip 'v5g'"),
        (["tuna/lama_7b", "--topology", "v5e-16"], "did you mean 'tuna/llama_7b'?"),
        (["tuna/llama_7b", "--topology", "v5e-16", "--microbatches", "two"], "--microbatches is 'two'; allowed"),
        (["tuna/llama_7b", "--topology", "v5e-16", "--fsdp", "0.5"], "--fsdp is '0.5'; allowed"),
        ([], "plan wants CONFIG"),
    ],
)
def test_a_mistake_on_the_command_line_is_answered_before_anything_is_compiled(arguments, said, capsys):
    assert cli.main(["plan", *arguments]) == cli.USAGE_ERROR
    assert said in capsys.readouterr().err


def test_a_config_that_trains_nothing_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"fine-tunes nothing.*plan one of tuna/"):
        fine_tunings_of(config.load("sampling/local"), "sampling/local")


def test_names_and_the_environment_of_hardware_need_no_jax():
    program = "import sys, jaxrefine.planning.topology\nassert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=pathlib.Path(__file__).parents[2])
