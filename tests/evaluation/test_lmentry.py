"""LMentry's accuracy, robustness and score: by hand, and what a perfect and a constant reader get."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.data.lmentry import CORE_TASKS, TASK_OF, VARIANTS, read_lmentry
from jaxrefine.data.readers import read_candidates, write_candidates
from jaxrefine.evaluation.lmentry import ADJACENT, TWO_OPTIONS, robustness, score_lmentry


def made(task: str, right: bool, *, template: int = 0, position: int = 0, number: int = 0) -> Candidates:
    """An example of any task with a reply that is right or wrong."""
    metadata: dict[str, Any] = {"template_id": template}
    core = TASK_OF[task]
    for field in CORE_TASKS[core]:
        metadata[field] = {
            "answer": "b", "distractor": "zz", "distractors": ["zz"], "category": "c", "answer_index": position,
            "num_words": 1, "num_distractors": 0, "word": "b", "letter": "b", "query": "q", "sentence": "q b q",
        }[field]  # fmt: skip
    if core in ("bigger_number", "smaller_number"):
        metadata |= {"answer": 7, "distractor": 5}
    rights = {"bigger_number": "7", "smaller_number": "7", "any_words_from_category": "yes"} | {
        "all_words_from_category": "yes", "sentence_containing": "a b c", "sentence_not_containing": "a c",
        "word_containing": "cab", "word_not_containing": "ace", "starts_with_word": "b c", "ends_with_word": "a b",
        "starts_with_letter": "bee", "ends_with_letter": "cab",
    }  # fmt: skip
    reply = rights.get(core, "b") if right else "---"
    return Candidates(
        f"{task}-{template}-{position}-{number}", "p", (reply,), (0.0,), meta={"task": task, "metadata": metadata}
    )


def whole(wrong: set[str]) -> list[Candidates]:
    """Every file with three templates and both positions; right but for the files named."""
    return [
        made(task, task not in wrong, template=template, position=position)
        for task in TASK_OF
        for template in range(3)
        for position in (0, 1)
    ]


def test_a_perfect_reader_scores_one():
    found = score_lmentry(whole(set()))
    assert (found.score, found.accuracy, found.robustness) == (1.0, 1.0, 1.0)
    assert len(found.tasks) == 41
    assert "score 100.0, accuracy 100.0, robustness 100.0" in str(found)


def test_one_task_that_fails_costs_accuracy_and_the_pairs_that_it_is_in():
    found = score_lmentry(whole({"first_word"}))
    assert found.accuracy == pytest.approx(24 / 25)
    # first_word is in two of the 17 pairs: with first_letter and with last_word; nothing else is affected
    assert found.adjacent_tasks == pytest.approx(15 / 17)
    assert (found.argument_order, found.argument_content, found.template) == (1.0, 1.0, 1.0)
    assert found.robustness == pytest.approx((3 + 15 / 17) / 4)
    assert found.score == pytest.approx(24 / 25 * (3 + 15 / 17) / 4)
    assert found.adjacent["characters"] == pytest.approx(5 / 6)
    assert found.adjacent["first_and_last"] == pytest.approx(3 / 4)
    assert (found.adjacent["definition"], found.adjacent["negation"]) == (1.0, 1.0)


def test_one_variant_that_fails_costs_robustness_to_content_alone():
    found = score_lmentry(whole({"more_letters_length_diff_1"}))
    assert (found.accuracy, found.argument_content) == (1.0, pytest.approx(5 / 6))
    assert found.robustness == pytest.approx((3 + 5 / 6) / 4)


def test_a_template_and_a_position_that_are_read_worse():
    examples = [example for example in whole(set()) if example.meta["task"] != "homophones"]
    # right at position 0 always, at position 1 in template 2 alone: templates ½, ½, 1, positions 1 and ⅓
    examples += [
        made("homophones", position == 0 or template == 2, template=template, position=position)
        for template in range(3)
        for position in (0, 1)
    ]
    found = score_lmentry(examples)
    assert found.tasks["homophones"].by_template == {0: 0.5, 1: 0.5, 2: 1.0}
    assert found.tasks["homophones"].by_position == {0: 1.0, 1: pytest.approx(1 / 3)}
    assert found.template == pytest.approx((24 + 0.5) / 25)
    assert found.argument_order == pytest.approx((6 + 1 / 3) / 7)


def test_a_missing_file_leaves_only_what_does_not_need_it():
    present = [example for example in whole(set()) if example.meta["task"] != "rhyming_word_orthographically_similar"]
    found = score_lmentry(present)
    assert (found.accuracy, found.template) == (1.0, 1.0)
    assert (found.argument_content, found.robustness, found.score) == (None, None, None)
    assert "argument_content –" in str(found)


def test_several_replies_count_as_their_mean():
    one = made("first_letter", True)
    found = score_lmentry([dataclasses.replace(one, responses=("b", "c", "d", "b"), labels=(0.0,) * 4, finished=())])
    assert found.tasks["first_letter"].accuracy == 0.5


def test_what_was_sampled_to_a_file_is_scored_from_it(tmp_path: pathlib.Path):
    asked = [made("homophones", True, position=1), made("word_after", False)]
    write_candidates(tmp_path / "sampled.jsonl", asked)
    found = score_lmentry(read_candidates(tmp_path / "sampled.jsonl"))
    assert found == score_lmentry(asked)
    assert (found.tasks["homophones"].by_position, found.tasks["word_after"].accuracy) == ({1: 1.0}, 0.0)
    assert json.loads(json.dumps(found.record()))["accuracy"] is None


def test_robustness_is_the_largest_difference():
    assert robustness([0.2, 0.9, 0.5]) == pytest.approx(0.3)
    assert robustness([0.4]) == 1.0


def test_the_published_groups_have_their_published_sizes():
    assert sum(len(pairs) for pairs in ADJACENT.values()) == 17
    assert {task for pairs in ADJACENT.values() for pair in pairs for task in pair} <= set(CORE_TASKS)
    assert len(TWO_OPTIONS) == 7
    assert sum(len(variants) for variants in VARIANTS.values()) == 16


@pytest.mark.parametrize(
    ("examples", "reason"),
    [([], "no example to score"), ([Candidates("7", "p", meta={"task": "first_word"})], "example '7' has no response")],
)
def test_nothing_to_score_is_an_error(examples: list[Candidates], reason: str):
    with pytest.raises(ValueError, match=reason):
        score_lmentry(examples)


@pytest.mark.shared_data
def test_a_reader_that_always_says_yes(shared_data: pathlib.Path):
    """It is right exactly where the answer is yes: counted here from the numbers of distractors."""
    asked = read_lmentry(shared_data / "lmentry", tasks=["all_words_from_category"])
    found = score_lmentry(dataclasses.replace(one, responses=("Yes.",), labels=(0.0,), finished=()) for one in asked)
    task = found.tasks["all_words_from_category"]
    assert task.num == 3000
    assert task.accuracy == sum(one.meta["metadata"]["num_distractors"] == 0 for one in asked) / 3000
    assert set(task.by_template) == {0, 1, 2}
    assert found.score is None
