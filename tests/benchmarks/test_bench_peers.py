"""The comparison with the peers: the protocol with scripted sides, our own side for real, against plain torch."""

from __future__ import annotations

import io
import json
import math
import pathlib
import sys
import textwrap
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.peers import __main__ as command
from benchmarks.peers import compare, ours, results, targets, workload
from benchmarks.peers.compare import OURS, figures
from benchmarks.peers.sides import ROOT, Measured, Rounds, Side, measure_in_turns
from benchmarks.peers.worker import Ended, Turns
from jaxrefine.models.flops import batch_work

TINY = measure.Model(vocab_size=61, width=16, num_layers=2, num_heads=2, num_kv_heads=1, hidden_width=24)
SIZES = workload.Sizes(groups=2, candidates=3, prompt=5, response=4)

SCRIPTED = """
import sys, time
from benchmarks.peers.worker import serve
def main(case, turns):
    print("a library's chatter")
    turns.imported()
    if case.get("silent"):
        time.sleep(600)
    if case.get("dies") == "at once":
        raise SystemExit("line one\\nout of cheese")
    turns.ready(device="cpu", distributions=())
    for number in range(1000):
        turns.begin()
        if case.get("dies") == number:
            raise SystemExit("no more steps")
        with open(case["log"], "a") as log:
            log.write(case["name"])
        turns.end(case.get("loss", 1.0) - 0.125 * number)
serve(main, *sys.argv[2:], *NEEDS)
"""


@pytest.fixture
def scripted(tmp_path: pathlib.Path) -> Any:
    """Makes a side that does what its case says."""

    def make(name: str, needs: tuple[str, ...] = (), **case: Any) -> Side:
        module = f"scripted_{name}"
        (tmp_path / f"{module}.py").write_text(f"NEEDS = {needs!r}\n" + textwrap.dedent(SCRIPTED))
        environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
        case = {"name": name, "log": str(tmp_path / "log"), "environment": environment, **case}
        return Side(name=name, module=module, python=sys.executable, case=case)

    return make


@pytest.mark.parametrize("together", [True, False])
def test_every_side_takes_its_steps_in_every_round(scripted: Any, tmp_path: pathlib.Path, together: bool):
    rounds = Rounds(rounds=2, steps=2, warmups=1, together=together)
    found = measure_in_turns([scripted("a"), scripted("b")], rounds)
    for one in found.values():
        assert one.reason == ""
        assert len(one.seconds) == len(one.cpu_seconds) == 2
        assert one.losses == [1.0, 0.875, 0.75]  # the warm-up's and the first round's
        assert one.memory_bytes >= one.facts["imported_bytes"] > 0
    log = (tmp_path / "log").read_text()
    each = 3 if not together else 2
    assert {log[:3], log[3:6]} == {"aaa", "bbb"}
    assert {log[6 : 6 + each], log[6 + each :]} == {"a" * each, "b" * each}


def test_a_side_that_cannot_be_measured_says_why_and_the_others_go_on(scripted: Any):
    sides = [
        scripted("sound"),
        scripted("missing", needs=("no_such_library",)),
        scripted("dead", dies="at once"),
        scripted("weak", dies=2),
        Side(name="absent", module="nothing", python="", case={}, flag="--absent-python"),
        Side(name="mistyped", module="nothing", python="no-such-python", case={}, flag="--mistyped-python"),
    ]
    found = measure_in_turns(sides, Rounds(rounds=3, warmups=1))
    assert found["missing"].reason == "no_such_library not installed in its environment"
    assert found["absent"].reason == "no --absent-python was given"
    assert found["mistyped"].reason == "--mistyped-python names no program that can be run"
    assert found["dead"].reason.startswith("dead ended with status 1\n")
    assert found["dead"].reason.endswith("out of cheese")
    assert found["weak"].reason.endswith("no more steps")
    assert found["weak"].seconds == []
    assert found["sound"].reason == ""
    assert len(found["sound"].seconds) == 3


def test_a_side_that_says_nothing_is_given_up(scripted: Any):
    found = measure_in_turns([scripted("mute", silent=True)], Rounds(rounds=1, limit_seconds=0.25))
    assert found["mute"].reason.startswith("mute said nothing for 0 s where 'ready' was due")


def measured(seconds: list[float], losses: list[float], **facts: Any) -> Measured:
    return Measured(seconds=seconds, cpu_seconds=seconds, losses=losses, facts=facts, memory_bytes=2**30)


def rows(task: compare.Task, found: dict[str, Measured], sizes: workload.Sizes = SIZES, **changes: Any) -> Any:
    given = {"config": workload.model_config(TINY, 16), "dtype": "float32", "tolerance": 1e-4, "new": 7, **changes}
    return figures(task, found, sizes=sizes, **given)


def test_figures_are_of_candidates_a_second_and_ratios_are_taken_round_by_round():
    log2 = math.log(2)
    mine, theirs = rows("dpo", {
        OURS: measured([2.0, 1.0, 3.0], [log2, 0.5]), "peer": measured([4.0, 4.0, 9.0], [log2, 0.5]),
    })  # fmt: skip
    assert mine["candidates_per_second"] == 6 / 2.0
    assert mine["tokens_per_second"] == 6 * 4 / 2.0
    assert theirs["candidates_per_second"] == 6 / 4.0
    assert theirs["ratio"]["median"] == theirs["cpu_ratio"]["median"] == 3.0
    assert "ratio" not in mine
    assert mine["mfu"] is theirs["mfu"] is None  # fp32


@pytest.mark.parametrize(
    ("task", "losses", "reason"),
    [
        ("sft", [4.001, 3.0], "loss 1 is 4.001000, ours 4.000000: more than 0.0001 of the first apart"),
        ("sft", [4.0, 3.01], "loss 2 is 3.010000, ours 3.000000: more than 0.001 of the first apart"),
        ("sft", [4.0], "1 losses, ours are 2"),
        ("dpo", [0.7, 3.0], "the first loss is 0.700000, not log 2 = 0.693147"),
    ],
)
def test_a_side_that_computes_something_else_gets_no_figures(task: compare.Task, losses: list[float], reason: str):
    _, row = rows(task, {OURS: measured([1.0], [4.0, 3.0]), "peer": measured([1.0], losses)})
    assert row["reason"] == f"refused: {reason}"
    assert "seconds" not in row


def test_a_sampler_whose_greedy_text_differs_is_refused_but_for_bf16s_ties():
    found = {OURS: measured([1.0], [], greedy=[5, 6, 7]), "peer": measured([1.0], [], greedy=[5, 9, 9])}
    assert rows("sampling", found)[1]["reason"] == "refused: 1 of 3 greedy tokens are ours"
    mine, theirs = rows("sampling", found, tolerance=2e-2)
    assert theirs["reason"] == ""
    assert mine["tokens_per_second"] == 6 * 7


def test_model_flops_over_the_devices_peak_are_the_mfu():
    device = {"device": "NVIDIA H200"}
    found = {OURS: measured([0.5], [2.0], **device), "TRL SFT": measured([0.5], [2.0], **device)}
    sizes = workload.Sizes(groups=1, candidates=1, prompt=1, response=1)
    # a layer: 16·(2·16 + 2·8 + 3·24) = 1920 weights; 2 tokens, 3 pairs, 1 scored, 2 layers; backward twice forward
    flops = 3 * (2 * 2 * 1920 * 2 + 4 * 2 * 16 * 3 + 2 * 16 * 61)
    for row in rows("sft", found, sizes, dtype="bfloat16"):
        assert row["mfu"] == pytest.approx(flops / 0.5 / 989e12)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("workload")
    workload.write_model(directory / "model", TINY, max_positions=16, seed=0)
    sizes = {"groups": 2, "candidates": 3, "prompt": 5, "response": 4}
    workload.write_tokens(directory / "tokens.json", vocab_size=61, seed=0, **sizes)
    return {
        "model": str(directory / "model"), "tokens": str(directory / "tokens.json"), **sizes, "rows": 2, "new": 4,
        "dtype": "float32", "remat": "none", "attention": "expand", "learning_rate": 1e-2, "clip_norm": 1.0, "seed": 0,
    }  # fmt: skip


def answers(case: dict[str, Any], steps: int) -> list[dict[str, Any]]:
    """What our side says when it is asked for steps, in this process."""
    said = io.StringIO()
    with pytest.raises(Ended):
        ours.main(case, Turns(io.StringIO("step\n" * steps + "end\n"), said))
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_work_is_that_of_the_packed_batch(case: dict[str, Any]):
    groups = ours.groups_of({**case, "task": "dpo"})
    assert [group.labels for group in groups] == [(1.0, 0.0, 0.0)] * 2
    for rows in (1, 2):
        _, batch = ours.lay_out(groups, rows, expand=True)
        assert batch_work(batch) == SIZES.shared()
    alone = workload.Sizes(groups=2, candidates=1, prompt=5, response=4)
    assert alone.repeated(2) == alone.shared()


def reference_losses(case: dict[str, Any], task: str) -> list[float]:
    """Two losses of the same model in plain torch: pairs or sequences one by one, AdamW between."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(case["model"], dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=case["learning_rate"], weight_decay=0.0)
    given = json.loads(pathlib.Path(case["tokens"]).read_text())
    stored = None

    def score(prompt: list[int], response: list[int]) -> torch.Tensor:
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits, -1)[range(len(response)), response].sum()

    losses = []
    for _ in range(2):
        pairs = zip(given["prompts"], given["responses"], strict=True)
        scores = torch.stack([torch.stack([score(prompt, one) for one in some]) for prompt, some in pairs])
        if task == "sft":
            loss = -scores[:, 0].sum() / (2 * 4)
        else:
            stored = scores.detach() if stored is None else stored
            ratios = scores - stored
            loss = -torch.nn.functional.logsigmoid(0.1 * (ratios[:, :1] - ratios[:, 1:])).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), case["clip_norm"])
        optimizer.step()
    return losses


@pytest.mark.torch
@pytest.mark.parametrize("task", ["dpo", "sft"])
def test_our_steps_have_the_losses_of_plain_torch(case: dict[str, Any], task: str):
    said = answers({**case, "task": task, "candidates": 1 if task == "sft" else 3}, steps=2)
    assert [message["event"] for message in said] == ["ready", "step", "step"]
    losses = [message["loss"] for message in said[1:]]
    assert losses == pytest.approx(reference_losses(case, task), rel=1e-5)
    assert losses[1] < losses[0]


@pytest.mark.torch
def test_trainers_that_read_text_get_the_same_ids(case: dict[str, Any]):
    from benchmarks.peers import trl_trainer

    given = json.loads(pathlib.Path(case["tokens"]).read_text())
    prompt, response = given["prompts"][0], given["responses"][0][0]
    text = trl_trainer.text(prompt) + " " + trl_trainer.text(response)
    assert text.endswith(" </s>")
    assert trl_trainer.tokenizer(case)(text)["input_ids"] == prompt + response


def test_the_command_lists_absent_peers_and_measures_ours(tmp_path: pathlib.Path):
    options = command.Options(tasks=("sft",), shapes=((5, 4),), groups=1, model=TINY, rounds=Rounds(rounds=1))
    mine, trl, tunix = json.loads(json.dumps(list(command.run(options, tmp_path)), allow_nan=False))
    assert mine["reason"] == ""
    assert mine["seconds"]["median"] > 0
    assert trl["reason"] == "no --trl-python was given"
    assert tunix["reason"] == "no --tunix-python was given"
    report = results.section(record([mine, trl, tunix], options))
    assert "* TRL SFT: not measured: no --trl-python was given" in report


def record(rows: list[dict[str, Any]], options: command.Options, preset: str = "cpu", **own: Any) -> dict[str, Any]:
    plain = {"rounds": vars(options.rounds), "model": vars(options.model)}
    return {
        "preset": preset, "command": "python -m benchmarks.peers", "host": measure.environment()["host"],
        "load_after": 0.0, "options": {**vars(options), **plain}, "num_params": 10**7, "rows": rows,
        "packing": [], "logprobs": [], "failed": [], "finished": True, **own,
    }  # fmt: skip


def on_h200() -> list[dict[str, Any]]:
    """Rows as they would be: 2 s and 4 s a step, 1 GiB and 4 GiB."""
    facts = {"device": "NVIDIA H200"}
    found = {
        OURS: measured([2.0], [math.log(2)], **facts),
        f"TRL DPO + Liger, {targets.STORED}": measured([4.0], [math.log(2)], **facts),
    }
    sizes = workload.Sizes(groups=8, candidates=4, prompt=512, response=256)
    found[f"TRL DPO + Liger, {targets.STORED}"].memory_bytes = 2**32
    return rows("dpo", found, sizes, dtype="bfloat16")


def test_targets_are_not_measured_without_a_gpu():
    assert {found for _, found, _ in targets.targets([], [], [])} == {"not measured"}


def test_targets_are_read_from_the_rows_of_a_gpu():
    against = {"repeated, cudnn": 3.0, "shared, cudnn": 5.7, "repeated, expand": 1.0, "shared, expand": 2.0}
    packing = {
        "platform": "gpu", "device": "NVIDIA H200", "shapes": {"N": 4, "P": 512, "R": 256},
        "time_ratio": {name: {"median": ratio} for name, ratio in against.items()},
    }  # fmt: skip
    logprobs = {"platform": "gpu", "device": "NVIDIA H200", "value": {"chunked": {"flops_per_second": 6e14}}}
    found = [value for _, value, _ in targets.targets(on_h200(), [packing], [logprobs])]
    assert found[1:] == ["1.90 ×", "600 TFLOP/s", "2.00 ×", "0.25 of it"]
    assert found[0].endswith(" %")


def test_a_run_replaces_its_own_section_and_no_other(tmp_path: pathlib.Path):
    path, options = tmp_path / "RESULTS.md", command.PRESETS["gpu-1b"]
    results.write(path, record(on_h200(), options, "gpu-1b"))
    first = path.read_text()
    assert first.count("not measured: `python -m benchmarks.peers --preset") == 2
    assert "| 2.000 [2.000–2.000] | 1 |" in first
    results.write(path, record([], command.Options(), "cpu"))
    second = path.read_text()
    assert "NVIDIA H200" in second
    assert second.count("not measured: `python -m benchmarks.peers --preset") == 1
    results.write(path, record(on_h200(), options, "gpu-1b"))
    assert path.read_text() == second


def test_a_run_that_was_cut_short_says_so():
    cut = results.section(record(on_h200(), command.Options(), finished=False))
    assert "**Unfinished**" in cut
    assert "**Unfinished**" not in results.section(record(on_h200(), command.Options()))


@pytest.mark.parametrize("preset", command.PRESETS)
def test_presets_compare_ns_and_shapes(preset: str):
    options = command.PRESETS[preset]
    found = [(sizes.candidates, sizes.prompt, sizes.response) for task, sizes in command.comparisons(options)
             if task == "dpo"]  # fmt: skip
    assert found == [(N, P, R) for P, R in options.shapes for N in (2, 4, 8)]
    if preset != "cpu":
        assert options.shapes == ((512, 256), (1024, 256))
