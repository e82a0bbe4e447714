"""Files of scored solutions become a report by the command line's own stages; what does not fit is said beforehand."""

from __future__ import annotations

import collections
import dataclasses
import gzip
import json
import math
import pathlib
from typing import Any

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.evaluation.selection import Pool, SelectionSettings, measure
from jaxrefine.systems.math_selection import SETS, SHORTER, MathSelection

QUICK = SelectionSettings(largest=1, top=2, num_resamples=20, num_draws=5)


def line(id: str, answer: str | None, *candidates: tuple[str, float]) -> dict[str, Any]:
    record = {"id": id, "prompt": "?", "candidates": [{"text": text, "score": score} for text, score in candidates]}
    return record if answer is None else record | {"answer": answer}


def write(path: pathlib.Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


FIRST = line("1", "0.5", ("So #### 1/2", 2.0), ("a long way to \\boxed{\\frac{3}{2}}", -1.0), ("I give up", 9.0))
SECOND = line("2", "7", ("#### 8", 1.0), ("#### 7.0", -1.0), ("The answer is 7.", -2.0))


def own(tmp_path: pathlib.Path, **options: Any) -> MathSelection:
    file = write(tmp_path / "small.jsonl", FIRST, SECOND)
    return MathSelection(**{"samples": (file,), "grading": "keys", "settings": QUICK} | options)


def test_own_solutions_are_clustered_and_graded_whatever_their_spelling(tmp_path: pathlib.Path) -> None:
    [scored, shorter] = own(tmp_path).pools()
    assert (scored.name, shorter.name) == ("small / scores", "small / shorter")
    assert [problem.clusters for problem in scored.problems] == [(0, 1, None), (0, 1, 1)]
    assert [problem.right for problem in scored.problems] == [(True, False, False), (False, True, True)]
    found = scored.problems[0].scores
    assert found is not None
    assert found[:2] == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))])
    assert [problem.clusters for problem in shorter.problems] == [problem.clusters for problem in scored.problems]
    lengths = shorter.problems[1].scores
    assert lengths is not None
    assert lengths[0] > lengths[1] > lengths[2]


def test_the_report_is_that_of_the_pools(tmp_path: pathlib.Path) -> None:
    """The vote takes the first of two single answers and 7; the best score takes the first of each problem."""
    job = own(tmp_path, by_length=False)
    run_stages(job.stages(), tmp_path / "run", job)
    [pool] = json.loads((tmp_path / "run/02-report/metrics.json").read_text())["pools"]
    assert (pool["generator"], pool["evaluator"], pool["num_problems"]) == ("small", "scores", 2)
    values = {name: row["accuracy"]["value"] for name, row in pool["rows"].items()}
    assert (values["maj1"], values["rr_all"], values["rr_majk"], values["pass_at_n"]) == (1.0, 0.5, 1.0, 1.0)
    assert pool["rows"]["rr_all"]["scored"] == 5 / 6
    assert "| small / scores |" in (tmp_path / "run/02-report/report.md").read_text()


def test_evaluators_of_the_same_solutions_share_one_generator(tmp_path: pathlib.Path) -> None:
    one, other = (write(tmp_path / f"{name}.jsonl", FIRST, SECOND) for name in ("one", "other"))
    names = (f"g:rm={one}", f"g:judge={other}", f"h:rm={one}")
    pools = list(own(tmp_path, samples=names).pools())
    assert [pool.name for pool in pools] == ["g / rm", "g / judge", "g / shorter", "h / rm", "h / shorter"]
    changed = write(tmp_path / "changed.jsonl", SECOND, FIRST)
    with pytest.raises(ValueError, match="g: rm and judge did not score the same solutions in the same order"):
        list(own(tmp_path, samples=(f"g:rm={one}", f"g:judge={changed}")).pools())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples": ()}, "give yours with --samples FILE.jsonl, or --data DIRECTORY"),
        ({"data": ".", "sets": ("birm-lama3-8b",)}, "did you mean 'birm-llama3-8b'"),
        ({"samples": ("rm=x.jsonl",)}, "'rm=x.jsonl': FILE or GENERATOR:EVALUATOR=FILE is wanted"),
        ({"samples": ("g:rm=x.jsonl", "g:rm=y.jsonl")}, "g:rm is named twice"),
        ({"samples": (f"g:{SHORTER}=x.jsonl",)}, "'shorter' is the baseline's name"),
    ],
)
def test_a_mistake_is_said_before_anything_is_read(tmp_path: pathlib.Path, change: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        own(tmp_path, **change).stages()


def test_what_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="none of the public sets is there: qwen2.5-math, "):
        list(own(tmp_path, samples=(), data=str(tmp_path)).pools())
    with pytest.raises(ValueError, match=r"gsm8k-4-models: .*example_model_solutions.jsonl.gz is not there"):
        list(own(tmp_path, data=str(tmp_path), sets=("gsm8k-4-models",)).pools())
    unknown = write(tmp_path / "unknown.jsonl", line("1", None, ("#### 1", 0.5)))
    with pytest.raises(ValueError, match="example '1' has no known answer"):
        list(own(tmp_path, samples=(unknown,)).pools())


def test_the_shipped_config_looks_at_fewer_clusters_than_there_are_solutions() -> None:
    settings = config.load("math/selection").settings
    assert (settings.largest, settings.top) == (2, 4)


def public(shared_data: pathlib.Path, name: str) -> Pool:
    job = dataclasses.replace(config.load("math/selection"), data=str(shared_data), sets=(name,), grading="keys")
    return next(job.pools())


@pytest.mark.shared_data
def test_rewarded_solutions_give_what_counting_by_hand_gives(shared_data: pathlib.Path) -> None:
    """Votes by the extracted strings, best of 8 by raw reward: neither our clusters nor our strategies."""
    with gzip.open(shared_data / "qwen25_math_rm/math_cot_100.jsonl.gz", "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    voted = [record["pred"].index(collections.Counter(record["pred"]).most_common(1)[0][0]) for record in records]
    best = [max(range(8), key=lambda n: record["pred_score"][n][0]) for record in records]
    found = measure(public(shared_data, "qwen2.5-math"), QUICK)
    for name, chosen in (("maj1", voted), ("rr_all", best)):
        right = [record["score"][index] for record, index in zip(records, chosen, strict=True)]
        assert found.rows[name].accuracy.value == pytest.approx(sum(right) / 50)
    assert found.rows["pass_at_n"].accuracy.value == sum(any(record["score"]) for record in records) / 50


@pytest.mark.shared_data
@pytest.mark.parametrize("name", [name for name in SETS if name != "prm800k"])
def test_no_cluster_of_a_public_set_has_right_and_wrong_solutions(shared_data: pathlib.Path, name: str) -> None:
    """Our equivalence of answers and the labels of five data sets agree, and nothing without an answer is right."""
    pool = public(shared_data, name)
    for problem in pool.problems:
        right = collections.defaultdict(set)
        for number, label in zip(problem.clusters, problem.right, strict=True):
            right[number].add(label)
        assert all(len(labels) == 1 for labels in right.values()), problem.id
        assert right[None] <= {False}, problem.id


@pytest.mark.shared_data
def test_single_models_of_gsm8k_have_their_published_share_of_right_solutions(shared_data: pathlib.Path) -> None:
    """On all 1,319 problems the four models have 21.68, 39.04, 34.72 and 56.25 %; half of them are here."""
    pool = public(shared_data, "gsm8k-4-models")
    shares = [100 * sum(problem.right[model] for problem in pool.problems) / 659 for model in range(4)]
    assert shares == pytest.approx([21.68, 39.04, 34.72, 56.25], abs=4.0)  # three standard errors of a half
