"""Super-NI's ROUGE-L: by hand, and as the published definition has it on published tasks."""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.data.super_ni import read_super_ni
from jaxrefine.evaluation.super_ni import make_rouge_l, score_super_ni
from jaxrefine.sampling.diversity import rouge_l as unstemmed


def replied(task: str, references: list[str], *replies: str, categories: tuple[str, ...] = ()) -> Candidates:
    meta = {"task": task, "references": references, "categories": list(categories)}
    return Candidates(f"{task}-{references}", "p", replies, (0.0,) * len(replies), meta=meta)


@pytest.mark.parametrize(
    ("reply", "references", "expected"),
    [
        ("police killed the gunman", ["police kill the gunman"], 1.0),  # killed and kill share a stem
        ("the gunman kill police", ["police kill the gunman"], 1 / 2),  # Lin 2004, §3.1
        ("a b", ["c", "a b c d", "b a c"], 2 * 2 / 6),  # the best of several: 0, 4/6, 2/5
        ("", ["a"], 0.0),
        ("猫", ["猫"], 0.0),
    ],
)
def test_rouge_l_by_hand(reply: str, references: list[str], expected: float):
    assert make_rouge_l()(reply, references) == pytest.approx(expected, rel=1e-12)


def test_the_extra_is_named_where_the_package_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxrefine\[judging\]'"):
        make_rouge_l()


def test_without_stemming_it_is_that_of_the_diversity_rule():
    rouge = make_rouge_l(stemmed=False)
    for first, second in [("police killed the gunman", "police kill the gunman"), ("a b c a", "c a b"), ("Up!", "up")]:
        assert rouge(first, [second]) == pytest.approx(unstemmed(first, second), rel=1e-12)


def test_tasks_count_alike_however_many_instances_they_have():
    found = score_super_ni([
        replied("one", ["a b"], "a b", categories=("x", "y")),
        replied("two", ["a b"], "a c", categories=("y",)),  # 2·1/4
        replied("two", ["d"], "e", categories=("y",)),
        replied("two", ["The end."], "the END", categories=("y",)),
    ])  # fmt: skip
    assert found.by_task == {"one": 1.0, "two": pytest.approx((0.5 + 0 + 1) / 3)}
    assert found.rouge_l == pytest.approx((1 + 0.5) / 2)
    assert found.exact_match == pytest.approx((1 + 1 / 3) / 2)
    assert found.by_category == {"x": 1.0, "y": pytest.approx(0.75)}
    assert found.num == {"one": 1, "two": 3}
    assert found.interval.low <= found.rouge_l <= found.interval.high
    assert "2 Super-NI tasks, 4 instances: ROUGE-L 75.0" in str(found)


def test_several_replies_count_as_their_mean():
    assert score_super_ni([replied("t", ["a b"], "a b", "a", "c")]).rouge_l == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (Candidates("1", "p", ("x",), (0.0,)), "example '1': meta needs a task"),
        (Candidates("1", "p", ("x",), (0.0,), meta={"task": "t", "references": []}), "at least one of references"),
        (Candidates("1", "p", meta={"task": "t", "references": ["x"]}), "example '1' has no response"),
    ],
)
def test_what_cannot_be_scored_is_refused(example: Candidates, reason: str):
    with pytest.raises(ValueError, match=reason):
        score_super_ni([example])
    with pytest.raises(ValueError, match="no example to score"):
        score_super_ni([])


@pytest.mark.shared_data
def test_references_score_one_and_inputs_less(shared_data: pathlib.Path):
    tasks = read_super_ni(shared_data / "super_ni" / "tasks")
    prompts = [prompt for task in tasks for prompt in task.prompts(shots=0, max_instances=5)]
    inputs = {instance.id: instance.input for task in tasks for instance in task.instances}

    def with_reply(prompt: Candidates, reply: str) -> Candidates:
        return dataclasses.replace(prompt, responses=(reply,), labels=(0.0,), finished=())

    best = score_super_ni(with_reply(prompt, prompt.meta["references"][-1]) for prompt in prompts)
    assert (best.rouge_l, best.exact_match, len(best.by_task)) == (1.0, 1.0, 23)
    copied = score_super_ni(with_reply(prompt, inputs[prompt.id][:300]) for prompt in prompts)
    assert 0.0 < copied.rouge_l < 0.6
