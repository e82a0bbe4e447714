"""Fine-tuning from directory to directory: it learns, goes on to the same bytes, and says what it left out."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrefine.conversion.loaded import Placement
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.conversion.scorer import load_scorer
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.steps import StepLoader
from jaxrefine.data.tokenizer import load_tokenizer
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.lora import LoraConfig
from jaxrefine.scoring.adapted import TuningConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.finetuning import Finetuning, finetune, token_groups
from jaxrefine.training.full_size import full_size
from jaxrefine.training.optimizer import OptimizerConfig
from tests.evaluation.tiny_model import save_tiny_model

ONE = Placement(num_devices=1)
SFT = Finetuning(
    objective=ObjectiveConfig(mle_weight=1.0), optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant"),
    epochs=2, groups_per_step=2, max_prompt=16, max_response=8, slots=32, keep_epochs=True, log_every_steps=1,
    checkpoints=CheckpointConfig(every_steps=2),
)  # fmt: skip
INSTRUCTIONS = [Instruction(str(n), f"{n}+1?", f"{n + 1}") for n in range(6)]
PAIRS = [Candidates(str(n), f"{n}+1?", (f"{n + 1}", "no"), (1.0, 0.0)) for n in range(4)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def trained(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained")
    assert finetune(start, INSTRUCTIONS, SFT, directory, placement=ONE) == directory / "model"
    return directory


def weights(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


def losses(directory: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_leaves_a_model_with_its_tokenizer_and_no_checkpoint(trained: Path):
    found = losses(trained)
    assert len(found) == 6
    assert found[-1] < found[0]
    assert load_tokenizer(trained / "model").encode("1+1?")
    assert not (trained / "checkpoints").exists()
    summary = json.loads((trained / "summary.json").read_text())
    assert (summary["steps"], summary["groups_per_step"], summary["num_groups"], summary["refused"]) == (6, 2, 6, {})
    # Each of the six prompts is seen twice: "n+1?" after the BOS, one figure and the EOS.
    tokenizer = load_tokenizer(trained / "model")
    prompts = [len(tokenizer.encode(one.prompt)) + (tokenizer.bos_id is not None) for one in INSTRUCTIONS]
    responses = [len(tokenizer.encode(one.response)) + 1 for one in INSTRUCTIONS]
    assert summary["tokens"] == 2 * sum(prompts + responses)
    assert summary["scored_tokens"] == 2 * sum(responses)


def test_a_run_that_stopped_ends_with_the_same_bytes(trained: Path, start: Path, tmp_path: Path, monkeypatch):
    whole = StepLoader.batch

    def stops(loader: StepLoader, step: int):
        if step == 4:
            raise KeyboardInterrupt("in the middle")
        return whole(loader, step)

    monkeypatch.setattr(StepLoader, "batch", stops)
    with pytest.raises(KeyboardInterrupt, match="in the middle"):
        finetune(start, INSTRUCTIONS, SFT, tmp_path, placement=ONE)
    assert not (tmp_path / "model").exists()
    read = []
    monkeypatch.setattr(StepLoader, "batch", lambda loader, step: read.append(step) or whole(loader, step))
    finetune(start, INSTRUCTIONS, SFT, tmp_path, placement=ONE)
    assert weights(tmp_path / "model") == weights(trained / "model")
    assert weights(tmp_path / "epochs" / "1") == weights(trained / "epochs" / "1")
    assert min(read) >= 2  # the checkpoint of step 2 was committed
    assert finetune(start, INSTRUCTIONS, SFT, tmp_path, placement=ONE) == tmp_path / "model"  # nothing is left to do
    assert losses(tmp_path) == losses(trained)


def test_the_model_of_an_epoch_is_that_of_a_run_of_so_many_epochs(trained: Path, start: Path, tmp_path: Path):
    once = dataclasses.replace(SFT, epochs=1, keep_epochs=False, checkpoints=None)
    finetune(start, INSTRUCTIONS, once, tmp_path, placement=ONE)
    assert weights(tmp_path / "model") == weights(trained / "epochs" / "1")
    assert [path.name for path in (trained / "epochs").iterdir()] == ["1"]


def test_preferences_start_where_the_reference_is(start: Path, tmp_path: Path):
    dpo = dataclasses.replace(SFT, objective=ObjectiveConfig(loss="dpo"), steps=2, keep_epochs=False, checkpoints=None)
    same = Candidates("same", "2+2?", ("4", "5"), (1.0, 1.0))
    finetune(start, [*PAIRS, same], dpo, tmp_path, placement=ONE)
    # The policy is its own reference at first: -log sigmoid(0).
    assert losses(tmp_path)[0] == pytest.approx(math.log(2), rel=1e-5)
    assert losses(tmp_path)[1] < losses(tmp_path)[0]
    (left,) = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert left == {"index": 4, "reason": "its candidates all have one label"}


def test_a_head_is_kept_and_training_goes_on_from_it(start: Path, tmp_path: Path):
    reward = dataclasses.replace(
        SFT, objective=ObjectiveConfig(loss="pairwise_logistic", scorer="reward"), steps=1, keep_epochs=False,
        checkpoints=None,
    )  # fmt: skip
    first = finetune(start, PAIRS, reward, tmp_path / "first", placement=ONE)
    still = dataclasses.replace(reward, optimizer=OptimizerConfig(learning_rate=0.0), seed=5)
    second = finetune(first, PAIRS, still, tmp_path / "second", placement=ONE)
    (described, head), (_, after) = load_scorer(first), load_scorer(second)
    assert described["scorer"] == "reward"
    np.testing.assert_array_equal(head["kernel"], after["kernel"])


def test_adapters_that_learned_nothing_leave_the_model_as_it_was(start: Path, tmp_path: Path):
    tuning = TuningConfig(parameters="adapters", base="as_given", lora=LoraConfig(rank=2))
    still = dataclasses.replace(
        SFT, tuning=tuning, optimizer=OptimizerConfig(learning_rate=0.0), steps=1, keep_epochs=False, checkpoints=None
    )
    model = finetune(start, INSTRUCTIONS, still, tmp_path, placement=ONE)
    (_, before), (_, after) = load_pretrained(start), load_pretrained(model)
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_what_cannot_be_learned_from_is_refused_with_the_reason(start: Path, tmp_path: Path):
    ranking = dataclasses.replace(SFT, objective=ObjectiveConfig(loss="margin_ranking", mle_weight=1.0))
    same = [Candidates("1", "2+2?", ("4", "5"), (1.0, 1.0))]
    with pytest.raises(ValueError, match=r"none of 1 examples can be used: .*all have one label"):
        finetune(start, same, ranking, tmp_path, placement=ONE)
    with pytest.raises(ValueError, match="steps = 0 must be at least 1"):
        dataclasses.replace(SFT, steps=0)
    with pytest.raises(ValueError, match="mle_on = 'most'; allowed: best"):
        dataclasses.replace(SFT, mle_on="most")


def test_the_datas_own_response_is_learned_beside_the_candidates_and_not_ranked(start: Path):
    from jaxrefine.conversion.loaded import load_model

    loaded = load_model(start, ONE)
    config = dataclasses.replace(
        SFT, objective=ObjectiveConfig(loss="margin_ranking", mle_weight=1.0), mle_on="original"
    )
    example = dataclasses.replace(PAIRS[0], meta={"original": "1!"})
    (group,), refused = token_groups([example, PAIRS[1]], loaded, config)
    assert [item.reason for item in refused] == ['mle_on is "original", and meta["original"] holds no text']
    assert group.rank_where == (True, True, False)
    assert group.mle_weight == (0.0, 0.0, 1.0)
    assert group.responses[2][:-1] == tuple(loaded.tokenizer.encode("1!"))


def test_a_step_at_full_size_is_traced_without_weights():
    llama_7b = TransformerConfig(
        vocab_size=32000, width=4096, num_layers=32, num_heads=32, num_kv_heads=32, head_width=128, hidden_width=11008
    )
    lora = LoraConfig(rank=8, targets=("attention/query", "attention/value"))
    tuning = TuningConfig(parameters="adapters", base="nf4", lora=lora)
    config = Finetuning(
        objective=ObjectiveConfig(loss="margin_ranking", mle_weight=1.0), tuning=tuning, groups_per_step=16,
        num_microbatches=4, slots=2048, mle_on="original",
    )  # fmt: skip
    found = full_size(config, llama_7b, num_candidates=5)
    assert found.num_params == 6_738_415_616
    assert found.num_trained == 2 * 32 * 8 * (4096 + 4096)  # two maps of 32 layers, A and B of rank 8
    assert found.rows == (4, 4, 512 + 5 * 512)  # a prompt and five responses are longer than 2048: a row each
    assert "loss/margin_ranking" in found.metrics
