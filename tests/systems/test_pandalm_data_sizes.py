"""Judges of several sizes from one set of records: nested, asked alike, told in one table."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.data.readers_pandalm import JudgementRecord, write_judgement_records
from jaxrefine.evaluation.judge_report import measure_judges
from jaxrefine.evaluation.judge_sizes import SizedJudge, commonest, sizes_figure
from jaxrefine.systems import pandalm_judge
from jaxrefine.systems.pandalm_judge import JudgeStages
from jaxrefine.systems.pandalm_sizes import JudgeDataSizes, in_drawn_order
from tests.evaluation.test_judge_report import PAIRS, said

SHIPPED = pathlib.Path(pandalm_judge.__file__).parent.parent / "shipped" / "arithmetic-small"


def record(number: int, verdict: str) -> JudgementRecord:
    return JudgementRecord(
        id=f"{number}", instruction=f"Add {number}.", input="", first="5", second="6", verdict=verdict, reason="",
        reference="5",
    )  # fmt: skip


def test_the_first_records_are_a_sample_that_larger_ones_hold_with_both_orders_of_a_pair():
    records = [record(number, "first") for number in range(40)]
    records += [one.swapped() for one in records]
    drawn = in_drawn_order(records)
    assert sorted(one.id for one in drawn) == sorted(one.id for one in records)
    assert [one.id for one in drawn] == [one.id for one in in_drawn_order(records[::-1])]
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):
        assert other.id == f"{one.id}-swapped"
    first = [int(one.id) for one in drawn[:20:2]]
    assert first != sorted(first)
    assert max(first) > 20  # not the first ten of the file


@pytest.fixture
def job(tmp_path, monkeypatch) -> JudgeDataSizes:
    """Twelve records to learn from; a judge of n records is right about the first n of four held-out pairs."""
    verdicts = ["first", "second", "tie", "first"]
    write_judgement_records(tmp_path / "learn.jsonl", [record(number, "first") for number in range(12)])
    held_out = [record(100 + number, verdict) for number, verdict in enumerate(verdicts)]
    write_judgement_records(tmp_path / "held_out.jsonl", held_out)

    def scripted_learn(self, records, directory, description):
        shutil.copytree(SHIPPED, directory / "model")
        (directory / "summary.json").write_text(json.dumps({"steps": len(records) // 2}))
        (directory / "learned.json").write_text(json.dumps([one.id for one in records]))

    def scripted_ask(self, judge, records, directory):
        known = int(judge.parent.name)
        right = {one.id: one.verdict if n < known else "unparsable" for n, one in enumerate(records)}
        directory.mkdir(parents=True)
        (directory / "verdicts.json").write_text(json.dumps({"by reply": right, "by likelihood": right}))
        reasons = {"by reply": dict.fromkeys(right, "It is right."), "by likelihood": dict.fromkeys(right, "")}
        (directory / "reasons.json").write_text(json.dumps(reasons))
        rates = {how: {"conflict_rate": 0.25} for how in ("by reply", "by likelihood")}
        (directory / "orders.json").write_text(json.dumps(rates))

    monkeypatch.setattr(JudgeStages, "learn", scripted_learn)
    monkeypatch.setattr(JudgeStages, "ask", scripted_ask)
    whole = dataclasses.replace(config.load("pandalm/tiny"), search=None)
    judge = dataclasses.replace(
        whole.judge, records=str(tmp_path / "learn.jsonl"), held_out_records=str(tmp_path / "held_out.jsonl")
    )
    return JudgeDataSizes(whole=dataclasses.replace(whole, judge=judge), sizes=(1, 3, 12))


def test_every_size_has_its_judge_and_its_row(job: JudgeDataSizes, tmp_path):
    run_stages(job.stages(), tmp_path / "run", job)
    assert [stage.name for stage in job.stages()] == ["records", "judges", "agreement", "report"]
    learned = [
        json.loads((tmp_path / "run" / "02-judges" / str(size) / "learned.json").read_text()) for size in (1, 3, 12)
    ]
    assert [len(ids) for ids in learned] == [1, 3, 12]
    assert learned[1][:1] == learned[0]
    assert learned[2][:3] == learned[1]
    directory = tmp_path / "run" / "04-report"
    metrics = json.loads((directory / "metrics.json").read_text())
    assert [(one["records"], one["steps"], one["judges"]["by reply"]["accuracy"]) for one in metrics] == [
        (1, 0, 0.25), (3, 1, 0.75), (12, 6, 1.0)
    ]  # fmt: skip
    assert metrics[0]["reasons"]["by reply"] == {"mean_words": 3.0, "most": [["right", 4]]}
    text = (directory / "report.md").read_text()
    assert "Against the teacher on 4 held-out pairs; always first: 0.500." in text
    assert "| 3 | 1 | by reply | 0.750 |" in text
    assert (directory / "figures" / "data_sizes.png").stat().st_size > 1000


def test_what_cannot_be_is_refused(job: JudgeDataSizes, tmp_path):
    more = dataclasses.replace(job, sizes=(1, 13))
    with pytest.raises(ValueError, match="sizes: 13 records are wanted and there are 12"):
        run_stages(more.stages(), tmp_path / "run", more)
    with pytest.raises(ValueError, match="in order, each once"):
        dataclasses.replace(job, sizes=(3, 1))
    there = dataclasses.replace(job.whole, judge=dataclasses.replace(job.whole.judge, model=str(SHIPPED)))
    with pytest.raises(ValueError, match="a judge that is there learns nothing"):
        dataclasses.replace(job, whole=there).stages()


def test_the_curve_has_a_point_a_size_and_a_line_for_the_commonest_verdict():
    found = measure_judges(PAIRS, {"by reply": said(_1="first", _2="first", _3="tie", _4="tie", _5="tie")})
    # of the four pairs with a majority two are "first"
    assert commonest(found) == ("first", 0.5)
    judges = [SizedJudge(num_records=n, steps=n, found=found, conflicts={"by reply": 0.0}) for n in (10, 100)]
    left, right = sizes_figure(judges).axes[:2]
    assert left.get_xscale() == "log"
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["10", "100"]
    assert list(right.lines[0].get_xdata()) == [10, 100]
    assert left.lines[-1].get_ydata()[0] == 0.5


def test_the_shipped_sizes_end_within_the_records_there_are():
    tiny, published = config.load("pandalm/data_sizes"), config.load("pandalm/data_sizes_published")
    judge = tiny.whole.judge
    pairs = (judge.tasks.num - judge.num_held_out) * judge.pairs_per_task
    assert tiny.sizes[-1] <= 0.9 * 2 * pairs  # each in both orders; one in twenty was dropped
    assert judge.training.steps is None
    assert published.sizes[-1] == 300_000
    assert published.whole.judge.training.epochs == 2
