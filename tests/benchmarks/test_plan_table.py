"""The table of plans: its rows are command lines that parse, and what was not compiled says so."""

import json

import pytest

from benchmarks.plan_table import HEADER, OBJECTIVES, ROWS, Row, compact, table
from jaxrefine import config
from jaxrefine.planning.plan import fine_tunings_of
from jaxrefine.planning.shapes import model_shape
from jaxrefine.planning.topology import parse_topology


def test_rows_name_models_hardware_and_fine_tunings_that_are_there():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        model_shape(row.model)
        parse_topology(row.topology)
    for name, training, _ in OBJECTIVES.values():
        assert training in {item.name for item in fine_tunings_of(config.load(name), name)}


@pytest.mark.parametrize(
    ("topology", "objective", "groups", "microbatches"),
    [("h100x8", "Tuna", 128, 16), ("v5p-128", "SFT", 128, 1), ("v6e-256", "Tuna", 256, 1), ("v6e-256", "SFT", 512, 1)],
)
def test_each_device_has_a_row_of_each_microbatch(topology, objective, groups, microbatches):
    command = Row("llama-7b", objective, topology).command
    given = dict(zip(command[2::2], command[3::2], strict=True))
    assert (given["--groups"], given["--microbatches"]) == (str(groups), str(microbatches))


def test_a_table_has_what_was_compiled_and_says_what_was_not(tmp_path):
    done, other = Row("llama-7b", "Tuna", "h100x8"), Row("llama-7b", "SFT", "h100x8")
    found = {
        "roofline": {"tokens": 393216, "model_flops": 1.6e16, "step_seconds": 3.62, "mfu": 0.558},
        "compiled": {"collectives": [{"bytes": 2**31}, {"bytes": 2**30}]},
        "refused": None, "need": 20 * 2**30, "available": 80 * 2**30, "fits": True,
    }  # fmt: skip
    (tmp_path / f"{done.name}.json").write_text(json.dumps(found))
    lines = table([done, other], tmp_path).splitlines()
    assert lines[2] == "| llama-7b | Tuna | h100x8 | 393,216 | 20.0 | 80.0 | fits | 16.0 | 3.0 | 3.62 | 56% |"
    assert lines[3].startswith("| llama-7b | SFT | h100x8 | not compiled |")
    assert {line.count("|") for line in lines} == {len(HEADER) + 1}
    lines = compact([done, other], tmp_path).splitlines()
    assert lines[2:] == ["| llama-7b | h100x8 | 80.0 | – | 20.0 GiB, 3.62 s, 56% | – | – |"]
    assert {line.count("|") for line in lines} == {len(OBJECTIVES) + 4}
