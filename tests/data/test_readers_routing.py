"""Queries with rewards are read from our own lines and from public judgements; what is malformed is named."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.examples import Candidates, Routed
from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.readers_routing import (
    read_alpaca_eval,
    read_flask,
    read_mt_bench,
    read_routed,
    read_routellm,
    routed,
    subsets_of,
    write_routed,
)

MIXTRAL, GPT4 = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"


def write(path: pathlib.Path, *records: Any) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


OWN = {"id": "1", "prompt": "2+3?", "models": ["small", "large"], "rewards": [0, None]}


def test_own_lines_come_back_as_they_were_written(tmp_path: pathlib.Path) -> None:
    queries = [
        Routed("1", "2+3?", ("small", "large"), (0.0, None)),
        Routed("2", "Zwölf?", ("small", "large"), (-1.5, 1.0), ("sum", "word"), {"subsets": ["p", "q"]}),
    ]
    write_routed(tmp_path / "r.jsonl", queries)
    assert read_routed(tmp_path / "r.jsonl") == queries
    assert [subsets_of(query) for query in queries] == [("all",), ("p", "q")]
    with pytest.raises(ValueError, match="id '1' occurs twice"):
        write_routed(tmp_path / "r.jsonl", [queries[0]] * 2)


def test_a_line_without_tags_by_hand(tmp_path: pathlib.Path) -> None:
    assert read_routed(write(tmp_path / "r.jsonl", OWN)) == [Routed("1", "2+3?", ("small", "large"), (0.0, None))]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rewards": [0]}, "2 models need as many rewards, got 1"),
        ({"rewards": ["0", 1]}, r"rewards\[0\].item: a number is wanted, got str"),
        ({"models": ["a", "a"]}, "models are distinct"),
        ({"tag": ["x"]}, "tag: unknown field 'tag'"),
        ({"meta": {"subsets": "p"}}, "meta.subsets: a list of strings is wanted, got 'p'"),
        ({"prompt": ""}, "prompt: is empty"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError, match=rf"r\.jsonl:1: .*{reason}"):
        read_routed(write(tmp_path / "r.jsonl", OWN | change))


def test_judged_candidates_of_named_models_become_a_query() -> None:
    meta = {"models": ["small", "large"], "tags": ["sum"], "subsets": ["p"]}
    judged = Candidates("1", "2+3?", ("5", "6"), (0.5, -1.0), meta=meta)
    assert routed(judged) == Routed("1", "2+3?", ("small", "large"), (0.5, -1.0), ("sum",), {"subsets": ["p"]})
    with pytest.raises(ValueError, match=r"names the model of each of its 2 responses; got \['small'\]"):
        routed(Candidates("1", "2+3?", ("5", "6"), (0.5, -1.0), meta={"models": ["small"]}))


def alpaca(tmp_path: pathlib.Path, *preferences: tuple[str, int, float | None]) -> pathlib.Path:
    index = [{"query_index": n, "dataset": "koala", "instruction": f"Query {n}?"} for n in (0, 1)]
    write(tmp_path / "query_index.jsonl", *index)
    lines = [{"model": model, "query_index": n, "preference": value} for model, n, value in preferences]
    write(tmp_path / "annotations_alpaca_eval_gpt4.jsonl", *lines)
    return tmp_path


def test_preferences_over_the_reference_become_rewards(tmp_path: pathlib.Path) -> None:
    made = alpaca(tmp_path, ("a", 0, 2), ("a", 1, 0), ("b", 0, 1), ("b", 1, None), ("c", 1, 1.5))
    first, second = read_alpaca_eval(made, models=("a", "text_davinci_003", "b", "c"))
    assert first == Routed(
        "alpaca_eval-0", "Query 0?", ("a", "text_davinci_003", "b", "c"), (1.0, 0.5, 0.0, None), ("koala",),
        {"subsets": ["koala"]},
    )  # fmt: skip
    assert second.rewards == (0.5, 0.5, None, 0.5)


def test_a_model_or_preference_that_is_none_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'claude'"):
        read_alpaca_eval(alpaca(tmp_path, ("claude", 0, 2)), models=("cluade",))
    with pytest.raises(RecordError, match="jsonl:1: preference: 0, 1.5 or a number in 1..2 is wanted, got 3"):
        read_alpaca_eval(alpaca(tmp_path, ("a", 0, 3)), models=("a",))


def judged(model: str, number: int, score: float, turn: int = 1, source: str = "x/y") -> dict[str, Any]:
    return {"source_repo": source, "question_id": number, "model": model, "score": score, "turn": turn}


def test_ratings_of_a_turn_are_averaged_and_unreadable_ones_unknown(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "question.jsonl",
          *[{"question_id": n, "category": "math", "turns": [f"First {n}?", "Then?"]} for n in (1, 2, 3)])  # fmt: skip
    write(tmp_path / "model_judgment/gpt-4_single.jsonl",
          judged("b", 1, 8), judged("b", 1, 5), judged("a", 1, -1), judged("a", 2, 9), judged("b", 2, 3, turn=2),
          judged("c", 2, 4, source="z/y"))  # fmt: skip
    first, second = read_mt_bench(tmp_path)
    assert (first.models, first.rewards, first.prompt) == (("a", "b", "c"), (None, 6.5, None), "First 1?")
    assert (second.rewards, second.tags, subsets_of(second)) == ((9.0, None, 4.0), ("math",), ("math",))
    assert [found.rewards for found in read_mt_bench(tmp_path, turns=(1, 2), sources=("x/y",))] == [
        (None, 6.5), (9.0, 3.0),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"no judgements of turns \(3,\)"):
        read_mt_bench(tmp_path, turns=(3,))


def test_answers_of_flask_are_rewarded_by_the_function_given(tmp_path: pathlib.Path) -> None:
    record = {"idx": 1, "instruction": "Say hi.", "answer": "hi", "skill": ["Factuality"], "domain": ["Culture", "-1"],
              "difficulty": -1}  # fmt: skip
    write(tmp_path / "flask_evaluation.jsonl", record, record | {"idx": 2})
    write(tmp_path / "outputs/one.jsonl", {"question_id": 1, "text": "hi"})
    write(tmp_path / "outputs/two.jsonl", {"question_id": 1, "text": ""})
    [found] = read_flask(tmp_path, score=lambda reference, text: float(reference == text), difficulties=True)
    assert found == Routed(
        "flask-1", "Say hi.", ("one", "two"), (1.0, 0.0), ("Factuality", "Culture"), {"subsets": ["Culture"]}
    )
    assert read_flask(tmp_path)[0].rewards == (None, None)
    write(tmp_path / "flask_evaluation.jsonl", record | {"domain": ["-1"]})
    assert subsets_of(read_flask(tmp_path)[0]) == ()


def routellm(tmp_path: pathlib.Path, **change: Any) -> pathlib.Path:
    choices = ["one", "two", "three", "four"]
    write(tmp_path / "test.jsonl", {"subject": "law", "question": "Which?", "choices": choices, "answer": 1})
    write(tmp_path / "mmlu_responses.jsonl",
          {"subject": "law", "index": 0, MIXTRAL: "False", GPT4: "True"} | change)  # fmt: skip
    rows = [f"prompt,{MIXTRAL},{GPT4},note", '"How, ""many""\nnow?",True,False,x']
    (tmp_path / "gsm8k_responses.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_questions_are_joined_with_who_was_right(tmp_path: pathlib.Path) -> None:
    made = routellm(tmp_path)
    law, grade = read_routellm(made, made)
    assert law == Routed("law-0", "Which?\nA. one\nB. two\nC. three\nD. four", (MIXTRAL, GPT4), (0.0, 1.0),
                         ("mmlu", "law"), {"subsets": ["law"]})  # fmt: skip
    assert (grade.id, grade.prompt, grade.rewards) == ("gsm8k-3", 'How, "many"\nnow?', (1.0, 0.0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({GPT4: "Yes"}, "True or False is wanted, got 'Yes'"), ({"index": 1}, "index: law has 1 questions, got 1")],
)
def test_records_that_do_not_fit_are_named(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError, match=rf"mmlu_responses\.jsonl:1: .*{reason}"):
        read_routellm(routellm(tmp_path, **change), tmp_path)


def test_a_table_without_a_column_is_named(tmp_path: pathlib.Path) -> None:
    (routellm(tmp_path) / "gsm8k_responses.csv").write_text(f"prompt,{MIXTRAL}\nx,True\n")
    with pytest.raises(RecordError, match=rf"csv:1: {GPT4}: missing; the columns are prompt, "):
        read_routellm(tmp_path, tmp_path, sets=("gsm8k",))


@pytest.mark.shared_data
def test_public_ratings_are_read_whole(shared_data: pathlib.Path) -> None:
    """53 of 80 queries, 18 models, 8 categories, as the data's own description says."""
    found = read_mt_bench(shared_data / "mt_bench")
    assert (len(found), len(found[0].models)) == (53, 18)
    assert len({subsets_of(query) for query in found}) == 8


@pytest.mark.shared_data
def test_public_records_of_right_and_wrong_are_read_whole(shared_data: pathlib.Path) -> None:
    """1,019 of 1,319 questions of GSM8K."""
    found = read_routellm(shared_data / "routellm", shared_data / "mmlu", sets=("gsm8k",))
    assert len(found) == len({query.id for query in found}) == 1019
    assert {subsets_of(query) for query in found} == {("gsm8k",)}
