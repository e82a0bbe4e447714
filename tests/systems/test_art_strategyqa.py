"""The shipped StrategyQA config from its file to its report, with scripted texts and scores in place of models'."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_instructions, write_candidates
from jaxrefine.evaluation.refinement import RefinementSettings
from jaxrefine.systems import art, art_solver
from jaxrefine.systems.art import Art
from tests.evaluation.tiny_model import save_tiny_model

SUBJECTS = ("a pond", "a kiln", "a glacier", "a candle", "a desert", "an oven", "a snowdrift", "a volcano", "a cellar",
            "a furnace")  # fmt: skip
HOT = {"a kiln", "a candle", "a desert", "an oven", "a volcano", "a furnace"}
YES, NO = "So it is.\n#### yes", "So it is not.\n#### No"
SAID: dict[str, list[tuple[str, ...]]] = {
    "train": [(YES, NO), (NO, NO), (YES, NO)],
    "test": [(YES,), (NO,)],  # of a pond and a kiln: both wrong
    "votes": [(NO, YES, NO), (YES, YES, NO)],
    "ask": [("How warm is it?\nYes",), ("How warm is it?\nIs that above 40 degrees?\nYes",)],
    "refined": [(NO,), (YES,)],
    "self_refined": [(YES,), ("It is hard to say.",)],
}
"""What is sampled, by description."""


@dataclasses.dataclass
class Run:
    directory: pathlib.Path
    prompts: dict[str, list[str]]
    learned: dict[str, list[tuple[str, Any]]]

    def read(self, name: str) -> Any:
        return json.loads((self.directory / name).read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("strategyqa")
    model = str(save_tiny_model(root / "start"))
    records = [
        {
            "qid": str(number), "term": subject, "description": "", "question": f"Would butter melt in {subject}?",
            "answer": subject in HOT, "facts": ["Butter melts at 32 degrees.", f"One can enter {subject}."],
            "decomposition": [f"How warm is {subject}?", "Is #1 above 32 degrees?"], "evidence": [],
        }
        for number, subject in enumerate(SUBJECTS)
    ]  # fmt: skip
    file = root / "strategyqa.json"
    file.write_text(json.dumps(records))
    published: Art = config.load("art/strategyqa")
    problems = dataclasses.replace(published.problems, train=str(file), test=str(file), num_train=3, num_solver=2)
    samples = dataclasses.replace(published.solver.samples, temperatures=(0.0, 0.7))
    job = dataclasses.replace(
        published,
        problems=problems,
        solver=dataclasses.replace(published.solver, model=model, shots=1, samples=samples),
        asker=dataclasses.replace(published.asker, model=model),
        truster=dataclasses.replace(published.truster, model=model),
        settings=RefinementSettings(num_resamples=20),
        placement=Placement(num_devices=1),
    )
    found = Run(root / "run", {}, {})

    def sample(model: Any, prompts: Sequence[Candidates], config: Any, directory: pathlib.Path, *, description: str):
        found.prompts[description] = [one.prompt for one in prompts]
        said = [
            dataclasses.replace(one, responses=texts, labels=(0.0,) * len(texts), finished=())
            for one, texts in zip(prompts, SAID[description], strict=True)
        ]
        directory.mkdir(parents=True)
        write_candidates(directory / "candidates.jsonl", said)
        return said

    def learn(start: pathlib.Path, examples: Sequence[Any], config: Any, directory: pathlib.Path, **options: Any):
        found.learned[options["description"]] = [
            (one.prompt, one.response if hasattr(one, "response") else one.responses) for one in examples
        ]
        return shutil.copytree(start, directory / "model")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(art_solver, "sample_candidates", sample)
        patch.setattr(art, "finetune", learn)
        patch.setattr(art_solver, "log_probs", lambda model, examples, rows: [(0.0, -1.0)] * len(examples))
        patch.setattr(art, "rewards", lambda model, examples, rows: [(1.0, 0.0), (0.0, 1.0)])
        run_stages(job.stages(), found.directory, job)
    return found


def test_the_first_fifth_is_measured_and_the_last_ones_are_worked_examples(run: Run) -> None:
    files = {name: run.directory / f"01-problems/{name}.jsonl" for name in ("test", "train", "solver")}
    ids = {name: [problem.id for problem in read_instructions(file)] for name, file in files.items()}
    assert ids == {"test": ["0", "1"], "train": ["2", "3", "4"], "solver": ["5", "6"]}
    shot = "Would butter melt in an oven?\nButter melts at 32 degrees.\nOne can enter an oven.\n#### yes"
    assert run.prompts["test"][0] == f"{shot}\n\nWould butter melt in a pond?\n"


def test_the_asker_learns_the_decompositions_and_whether_yes_or_no_was_wrong(run: Run) -> None:
    asked = run.learned["train the Asker"]
    assert [target.rsplit("\n", 1)[1] for _, target in asked] == ["Yes", "No", "Yes", "Yes", "No", "Yes"]
    prompt, target = asked[0]
    assert "Would butter melt in a glacier?" in prompt
    assert YES in prompt
    assert target == "How warm is a glacier?\nIs #1 above 32 degrees?\nYes"


def test_the_truster_learns_from_the_questions_that_were_answered_both_ways(run: Run) -> None:
    assert run.learned["train the Truster"] == [
        ("Would butter melt in a glacier?\n", (YES, NO)),
        ("Would butter melt in a desert?\n", (YES, NO)),
    ]


def test_refining_reads_the_askers_questions_and_the_facts_of_the_data(run: Run) -> None:
    last = run.prompts["refined"][1].split("\n\n")[1]
    assert last == (
        "Known:\nButter melts at 32 degrees.\nOne can enter a kiln.\n"
        "Settle these in turn:\nHow warm is it?\nIs that above 40 degrees?\nWould butter melt in a kiln?\n"
    )
    assert "Known:" not in run.prompts["test"][1]


def test_every_method_is_what_counting_by_hand_gives(run: Run) -> None:
    """First answers wrong, refined ones and votes right; the Truster prefers the first one, then the second."""
    right = run.read("10-report/finals.json")["right"]
    counted = {"none": [0, 0], "always": [1, 1], "asker": [1, 1], "art": [0, 1], "self_refine": [0, 0],
               "majority": [1, 1], "oracle_choice": [1, 1]}  # fmt: skip
    assert {name: right[name] for name in counted} == counted
    [found] = run.read("10-report/metrics.json")["refinements"]
    assert found["rows"]["art"]["share_reverted"] == 0.5
    assert "strategyqa; 3 to learn from, 2 to measure on" in (run.directory / "10-report/report.md").read_text()


def test_a_solver_that_is_always_wrong_leaves_the_truster_nothing_and_the_error_says_so(
    run: Run, tmp_path: pathlib.Path
) -> None:
    again = tmp_path / "run"
    shutil.copytree(run.directory, again)
    file = again / "03-answers/train.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        for candidate in line["candidates"]:
            candidate["score"] = 0.0
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = config.load("art/strategyqa")
    with pytest.raises(ValueError, match="none of 3 training problems has right and wrong answers among its samples"):
        job.train_truster(again / "06-truster")
