"""Labels say where they come from, through files and back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_candidates, write_candidates
from jaxrefine.judging.provenance import Provenance, Unjudged, details_of, distinct, labelled, provenance_of, sources

BY = Provenance(
    judge="contextual", version="1", model="m", model_version="2024", prompt="abc", settings={"axes": ("x", "y")}
)
EXAMPLE = Candidates("1", "2+3?", ("5", "6"), (0.0, 0.0), "5", (True, False), {"source": "made"})


def test_labels_and_their_origin_survive_a_file(tmp_path):
    found = labelled(EXAMPLE, [12, 7.5], BY, {"shown": [1, 0]})
    write_candidates(tmp_path / "data.jsonl", [found])
    (read,) = read_candidates(tmp_path / "data.jsonl")
    assert read == found
    assert read.labels == (12.0, 7.5)
    assert provenance_of(read) == BY
    assert details_of(read) == {"shown": [1, 0]}
    assert read.meta["source"] == "made"
    assert (read.responses, read.finished, read.answer) == (EXAMPLE.responses, EXAMPLE.finished, "5")


def test_a_later_judge_replaces_an_earlier_one():
    other = dataclasses.replace(BY, judge="pairwise")
    twice = labelled(labelled(EXAMPLE, [1, 2], BY, {"shown": [0, 1]}), [3, 4], other)
    assert provenance_of(twice) == other
    assert details_of(twice) == {}


@pytest.mark.parametrize("field", ["judge", "version", "model", "model_version", "prompt", "settings"])
def test_whatever_differs_changes_the_digest(field):
    changed = {"seed": 1} if field == "settings" else "other"
    assert dataclasses.replace(BY, **{field: changed}).digest() != BY.digest()


def test_equal_provenances_have_equal_digests_whether_made_or_read():
    assert Provenance.from_record(json.loads(json.dumps(BY.record()))).digest() == BY.digest()


def test_a_data_set_says_what_it_was_labelled_by():
    other = dataclasses.replace(BY, model="n")
    examples = [labelled(EXAMPLE, [1, 2], BY), labelled(EXAMPLE, [1, 2], BY), labelled(EXAMPLE, [1, 2], other), EXAMPLE]
    found = sources(examples)
    assert [(entry["judge"], entry["examples"]) for entry in found] == [("contextual", 2), ("contextual", 1), (None, 1)]
    assert found[0]["digest"] == BY.digest()
    assert found[1]["model"] == "n"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("someone", "meta.judgement is an object, got str"),
        ({"judge": "x"}, "a provenance without version, model"),
        (BY.record() | {"modell": "x"}, "unknown field of a provenance 'modell'; did you mean 'model'"),
        (BY.record() | {"version": ""}, "provenance.version is a non-empty string"),
    ],
)
def test_a_malformed_origin_is_an_error_that_names_example_and_field(record, message):
    example = dataclasses.replace(EXAMPLE, meta={"judgement": record})
    with pytest.raises(ValueError, match=message) as error:
        provenance_of(example)
    assert "example '1'" in str(error.value)


@pytest.mark.parametrize("settings", [{"power": float("nan")}, {"judge": object()}])
def test_settings_that_json_does_not_hold_are_refused(settings):
    with pytest.raises(ValueError, match="settings of judge 'contextual' do not fit JSON"):
        dataclasses.replace(BY, settings=settings)


def test_responses_that_differ_by_outer_space_alone_are_one():
    assert distinct(["a", " b", "b\n", "a", "A"]) == ([0, 1, 4], [0, 1, 1, 0, 2])


def test_what_is_not_judged_says_why():
    assert dataclasses.asdict(Unjudged(id="1", kind="refused", reason="one response")) == {
        "id": "1", "kind": "refused", "reason": "one response", "details": {}
    }  # fmt: skip
