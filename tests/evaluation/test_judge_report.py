"""Judges' tables, matrices and graphs by hand, and on the verdicts that PandaLM's authors published."""

from __future__ import annotations

import dataclasses
import json

import pytest
from rich.console import Console

from jaxrefine.data.readers_pandalm import Annotated, Said, read_pandalm_test_set, read_pandalm_verdicts
from jaxrefine.evaluation.agreement import standings
from jaxrefine.evaluation.judge_report import (
    PUBLISHED,
    Published,
    matrix,
    measure_judges,
    print_judges,
    reason_words,
    write_judge_report,
)
from jaxrefine.evaluation.pandalm_test_set import notes_on_test_set
from jaxrefine.evaluation.standings_plot import ranked, standings_graph


def pair(id: str, models: str, *said: str) -> Annotated:
    return Annotated(id=id, models=(models[0], models[1]), instruction="Go.", first="x", second="y", said=said)


PAIRS = [
    pair("1", "ab", "first", "first", "tie"),
    pair("2", "ba", "first", "first", "first"),
    pair("3", "ac", "tie", "tie", "tie"),
    pair("4", "cb", "second", "second", "first"),
    pair("5", "ab", "first", "second", "tie"),  # no majority
]


def said(**verdicts: str) -> dict[str, Said]:
    return {id[1:]: Said(verdict=verdict, reason="", reference="") for id, verdict in verdicts.items()}


OWL = said(_1="first", _2="tie", _3="tie", _4="garbage", _5="first")


def test_a_judge_is_measured_on_pairs_with_a_majority():
    found = measure_judges(PAIRS, {"owl": OWL})
    assert (found.num, found.without_majority) == (4, 1)
    assert found.judges["owl"].accuracy == 0.5
    assert found.judges["owl"].unread == 1
    assert found.lenient["owl"].accuracy == 0.5  # garbage as a tie is still wrong: people say second
    # annotators 1 and 2 agree on 4 of 5; each says first, tie, second; (2 + 1, 1, 1) and (2, 1, 2) of 5
    assert found.people[0] == pytest.approx((0.8 - (3 * 2 + 1 * 1 + 1 * 2) / 25) / (1 - (3 * 2 + 1 * 1 + 1 * 2) / 25))
    assert len(found.people) == 3


def test_a_pair_that_a_judge_left_out_is_unreadable_and_a_strange_one_is_refused():
    found = measure_judges(PAIRS, {"owl": said(_1="first")})
    assert (found.judges["owl"].unread, found.judges["owl"].accuracy) == (3, 0.25)
    with pytest.raises(ValueError, match="owl judged pair '9', which is not among the 5 pairs"):
        measure_judges(PAIRS, {"owl": said(_9="tie")})


def test_the_matrix_has_wins_losses_and_ties_from_the_rows_side():
    found = measure_judges(PAIRS, {"owl": OWL}).standings
    # people: a beats b, b beats a, a ties c, b beats c
    assert matrix(found["people"]).splitlines() == [
        "| | b | a | c |",
        "|---|---|---|---|",
        "| b |  | 1/1/0 | 1/0/0 |",
        "| a | 1/1/0 |  | 0/0/1 |",
        "| c | 0/1/0 | 0/0/1 |  |",
    ]
    assert found["owl"].wins.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_models_that_are_not_named_have_no_standings():
    unnamed = [Annotated(id="1", models=("", ""), instruction="Go.", first="x", second="y", said=("tie",))]
    assert measure_judges(unnamed, {"owl": said(_1="tie")}).standings == {}


def test_words_of_reasons_are_counted_once_a_reason():
    found = reason_words(["Clear, clear and it's right.", "", "The second is CLEAR.", "Right-minded"], most=3)
    assert found.most == (("clear", 2), ("it's", 1), ("right", 1))
    assert found.mean_words == (5 + 4 + 1) / 3
    assert reason_words([]).mean_words == 0


def test_the_graph_draws_an_arrow_for_each_lead_and_a_dashed_line_for_each_similar_pair():
    games = [("a", "b", "first")] * 6 + [("b", "c", "first")] * 2 + [("a", "c", "second")] * 5 + [("d", "a", "?")]
    found = standings(games)
    assert ranked(found) == ["c", "a", "b", "d"]
    [axis] = standings_graph(found).axes
    arrows = [text for text in axis.texts if getattr(text, "arrow_patch", None) is not None]
    dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert (len(arrows), len(dashed)) == (2, 1)
    texts = {text.get_text() for text in axis.texts}
    assert {"a", "b", "c", "d", "6:0", "5:0", "2:0"} <= texts


def test_the_report_marks_what_is_published(tmp_path):
    found = measure_judges(PAIRS, {"owl": OWL})
    path = write_judge_report(
        found, tmp_path, published={"elsewhere": [Published("hawk", 0.75)]}, title="Judges", least=1
    )
    text = path.read_text()
    assert "| hawk † | 0.7500 |" in text
    assert "| owl | 0.5000 |" in text
    assert "owl, unreadable as ties" in text
    assert (tmp_path / "figures" / "people.png").stat().st_size > 1000
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["judges"]["owl"]["unread"] == 1
    assert metrics["standings"]["people"]["beats"] == [["b", "c"]]
    console = Console(record=True, width=140)
    print_judges(found, {"elsewhere": [Published("hawk", 0.75)]}, console)
    assert "hawk †" in (wide := console.export_text())
    assert "precision" in wide
    narrow = Console(record=True, width=80)
    print_judges(found, {"a heading that is longer than the names of judges are": [Published("hawk", 0.75)]}, narrow)
    text = narrow.export_text()
    assert "…" not in text
    assert "0.7500" in text
    assert "precision" not in text


@pytest.mark.shared_data
def test_published_verdicts_on_pandalms_test_set(shared_data):
    data = shared_data / "pandalm"
    pairs = read_pandalm_test_set(data / "testset-v1.json.gz")
    files = {"PandaLM-7B": "pandalm-7b", "GPT-3.5": "gpt-3.5-turbo"}
    found = measure_judges(
        pairs, {name: read_pandalm_verdicts(data / f"{file}-testset-v1.json.gz") for name, file in files.items()}
    )
    assert (found.num, found.without_majority) == (502, 0)
    [note] = notes_on_test_set(pairs, found)
    assert note.startswith("These are 502 of the test set's 999 rows (idx 0 to 501): ")  # the first half
    assert all(0.8 < value < 0.9 for value in found.people)  # published: 0.85 to 0.88 on all 999
    recounted = PUBLISHED["its 999 released verdicts, counted again"]
    for row, measured in zip(recounted, (found.judges["PandaLM-7B"], found.lenient["GPT-3.5"]), strict=True):
        assert measured.interval.low < row.accuracy < measured.interval.high
    people = found.standings["people"]
    # every pair of the five models, by hand from the file: 55 to 42 comparisons, LLaMA ahead of all
    assert len(people.models) == 5
    assert ranked(people)[0] == "llama-7b"
    beats, similar = people.edges()
    assert len(beats) + len(similar) == 10
    assert {loser for winner, loser in beats if winner == "llama-7b"} == set(people.models) - {"llama-7b"}
    assert people.cycle() is None


@pytest.mark.shared_data
def test_the_whole_test_set_comes_to_what_is_known_of_it(shared_data):
    data = shared_data / "pandalm"
    pairs = read_pandalm_test_set(data / "testset-v1.json.gz")
    if len(pairs) < 999:
        pytest.skip(f"the file has {len(pairs)} of the 999 rows, idx 0 to {max(int(pair.id) for pair in pairs)}")
    files = ("pandalm-7b", "gpt-3.5-turbo")
    found = measure_judges(pairs, {file: read_pandalm_verdicts(data / f"{file}-testset-v1.json.gz") for file in files})
    notes = notes_on_test_set(pairs, found)
    assert len(notes) == 3
    assert all("as is known of it" in note for note in notes)


def test_all_rows_are_counted_against_what_is_known():
    said = ["first"] * 422 + ["second"] * 472 + ["tie"] * 105
    pairs = [
        Annotated(id=str(n), models=("a", "b"), instruction="Go.", first="x", second="y", said=(one,) * 3)
        for n, one in enumerate(said)
    ]
    # 667 of 999 right is the known accuracy to four places, but never the known F1
    verdicts = {
        str(n): Said(verdict="first" if n < 422 or n >= 667 else "second", reason="", reference="") for n in range(999)
    }
    whole, judge = notes_on_test_set(pairs, measure_judges(pairs, {"pandalm-7b": verdicts}))
    assert whole == "These are all 999 rows. Majorities: 422 first, 472 second, 105 tie: as is known of it."
    assert judge.startswith("pandalm-7b: accuracy 0.6677 and F1 ")
    assert judge.endswith("NOT what is known of it, so the file or the counting differs (known: 0.6677 and 0.5743).")
    other = [dataclasses.replace(pairs[0], said=("tie",) * 3), *pairs[1:]]
    assert "421 first, 472 second, 106 tie: NOT" in notes_on_test_set(other, measure_judges(other, {}))[0]
    part = [pairs[2], pairs[5]]
    assert (
        "2 of the test set's 999 rows (idx 2 to 5, not all between)"
        in notes_on_test_set(part, measure_judges(part, {}))[0]
    )
