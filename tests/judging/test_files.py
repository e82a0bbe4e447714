"""A file of candidates becomes a file of labelled ones, whenever it is stopped."""

from __future__ import annotations

import json

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.readers import read_candidates, write_candidates
from jaxrefine.judging.contextual import ContextualConfig, ContextualJudge
from jaxrefine.judging.files import judge_file, summarize
from jaxrefine.judging.provenance import Judge, Unjudged, provenance_of
from jaxrefine.sampling.responder import Failure

from .scripted import Scripted, judgement, shown


def lengths(request):
    return judgement({name: (min(5, len(text)), 0, 0) for name, text in shown(request).items()})


def write(path, num=6):
    """Prompts with two different candidates, unscored; the last has one candidate alone."""
    records = []
    for n in range(num):
        texts = ["a" * (1 + n % 4), "b" * (2 + n % 2)] if n < num - 1 else ["alone"]
        records.append({"id": f"p{n}", "prompt": f"Say {n}.", "candidates": [{"text": text} for text in texts]})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_file_is_judged_in_order_with_provenance_and_a_list_of_what_was_not(tmp_path):
    source, target = write(tmp_path / "in.jsonl"), tmp_path / "out" / "judged.jsonl"
    judge = ContextualJudge(Scripted(lengths))
    results, summary = judge_file(judge, source, target)
    found = read_candidates(target)
    assert found == [result for result in results if isinstance(result, Candidates)]
    assert [example.id for example in found] == ["p0", "p1", "p2", "p3", "p4"]
    assert [example.labels for example in found] == [(1, 2), (2, 3), (3, 2), (4, 3), (1, 2)]
    assert [provenance_of(example) for example in found] == [judge.provenance] * 5
    (left,) = [json.loads(line) for line in (target.parent / "judged.jsonl.unjudged.jsonl").read_text().splitlines()]
    assert (left["id"], left["kind"]) == ("p5", "refused")
    assert (summary.judged, summary.examples, summary.unjudged["refused"]) == (5, 6, 1)


def test_a_stopped_run_asks_for_the_rest_alone_and_ends_alike(tmp_path):
    source = write(tmp_path / "in.jsonl", 8)
    judge_file(ContextualJudge(Scripted(lengths)), source, tmp_path / "whole.jsonl")
    count = 0

    def dies(request):
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return lengths(request)

    with pytest.raises(KeyboardInterrupt):
        judge_file(ContextualJudge(Scripted(dies)), source, tmp_path / "stopped.jsonl")
    assert not (tmp_path / "stopped.jsonl").exists()
    rest = Scripted(lengths)
    judge_file(ContextualJudge(rest), source, tmp_path / "stopped.jsonl")
    assert len(rest.asked) == 7 - 3
    for name in ("stopped.jsonl", "stopped.jsonl.unjudged.jsonl"):
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("stopped", "whole")).read_bytes()
    nobody = Scripted(lengths)
    judge_file(ContextualJudge(nobody), source, tmp_path / "stopped.jsonl")
    assert nobody.asked == []


def test_what_was_unanswered_is_asked_again_and_what_was_unparsable_is_not(tmp_path):
    source, target = write(tmp_path / "in.jsonl", 4), tmp_path / "out.jsonl"

    def flaky(request):
        task = shown(request, "Task")[""]
        return (
            Failure(kind="unavailable", reason="down")
            if task == "Say 0."
            else "?"
            if task == "Say 1."
            else lengths(request)
        )

    results, summary = judge_file(ContextualJudge(Scripted(flaky)), source, target)
    assert [getattr(result, "kind", "labels") for result in results] == [
        "unanswered",
        "unparsable",
        "labels",
        "refused",
    ]
    assert summary.unjudged == {"refused": 1, "unparsable": 1, "unanswered": 1}
    assert "1 of 4 judged; refused 1, unparsable 1, unanswered 1" in str(summary)
    better = Scripted(lengths)
    again, summary = judge_file(ContextualJudge(better), source, target)
    assert [shown(request, "Task")[""] for request in better.asked] == ["Say 0."]
    assert again[1] == results[1]
    assert (summary.judged, summary.unjudged["unanswered"]) == (2, 0)


def test_a_journal_of_another_judge_or_of_other_examples_is_refused(tmp_path):
    source, target = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    judge_file(ContextualJudge(Scripted(lengths)), source, target)
    with pytest.raises(ValueError, match=r"out.jsonl.journal: example 'p0' was judged by contextual 1 with scripted"):
        judge_file(ContextualJudge(Scripted(lengths), ContextualConfig(seed=1)), source, target)
    source.write_text(source.read_text().replace("Say 2.", "Say two."))
    with pytest.raises(ValueError, match="example 'p2' is another one than when it was judged"):
        judge_file(ContextualJudge(Scripted(lengths)), source, target)


def test_labels_that_were_there_are_neither_read_nor_kept(tmp_path):
    source, target = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    judge_file(ContextualJudge(Scripted(lengths)), source, target)
    judge_file(ContextualJudge(Scripted(lengths)), target, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == target.read_bytes()


def test_a_malformed_line_is_named(tmp_path):
    source = write(tmp_path / "in.jsonl")
    source.write_text(source.read_text().replace('"id": "p3"', '"id": 3'))
    with pytest.raises(RecordError, match="in.jsonl:4: id: a string is wanted"):
        judge_file(ContextualJudge(Scripted(lengths)), source, tmp_path / "out.jsonl")


def test_unscored_candidates_are_read_only_where_that_is_asked_for(tmp_path):
    source = write(tmp_path / "in.jsonl", 2)
    with pytest.raises(RecordError, match=r"candidates\[0\].score: missing"):
        read_candidates(source)
    assert read_candidates(source, scored=False)[0].labels == (0.0, 0.0)
    write_candidates(source, [Candidates("1", "p", ("a",), (2.0,))])
    assert read_candidates(source, scored=False)[0].labels == (2.0,)


def test_reasons_are_counted_most_frequent_first():
    left = [Unjudged(id=str(n), kind="unparsable", reason=reason) for n, reason in enumerate("abb")]
    assert list(summarize(left).reasons.items()) == [("b", 2), ("a", 1)]


def test_the_judges_are_judges():
    assert isinstance(ContextualJudge(Scripted(lengths)), Judge)
