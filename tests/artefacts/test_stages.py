"""Finished stages are not run again, a stopped one goes on, and a work directory belongs to one config."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from jaxrefine.artefacts.stages import Stage, StageError, input_directory, run_stages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """A part."""

    learning_rate: float = 0.1
    seed: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A config."""

    training: Training = Training()
    steps: int = 5


class Counted:
    """Three stages that count how often they run; the second may be made to fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = False

    def sample(self, directory: pathlib.Path) -> None:
        """Writes samples."""
        self.calls.append("sample")
        (directory / "samples.txt").write_text("samples")

    def train(self, directory: pathlib.Path) -> None:
        """Reads samples, goes on where it was."""
        self.calls.append("train")
        text = (input_directory(directory, "sample") / "samples.txt").read_text()
        part = directory / "part.txt"
        part.write_text((part.read_text() if part.exists() else "") + text[:3])
        if self.fails:
            raise RuntimeError("out of luck")

    def report(self, directory: pathlib.Path) -> None:
        """Reads what was trained."""
        self.calls.append("report")
        (directory / "report.md").write_text((input_directory(directory, "train") / "part.txt").read_text())

    def stages(self) -> list[Stage]:
        """The run."""
        return [
            Stage("sample", self.sample),
            Stage("train", self.train, inputs=("sample",)),
            Stage("report", self.report, inputs=("train",)),
        ]


def _run(counted: Counted, workdir: pathlib.Path, config: Config | None = None) -> str:
    screen = io.StringIO()
    run_stages(counted.stages(), workdir, config if config is not None else Config(), Console(file=screen, width=200))
    return screen.getvalue()


def test_each_stage_runs_once_in_its_own_directory(tmp_path: pathlib.Path):
    counted = Counted()
    _run(counted, tmp_path)
    assert counted.calls == ["sample", "train", "report"]
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert names == ["01-sample", "02-train", "03-report"]


def test_finished_stages_are_not_run_again(tmp_path: pathlib.Path):
    counted = Counted()
    _run(counted, tmp_path)
    said = _run(counted, tmp_path)
    assert counted.calls == ["sample", "train", "report"]
    assert said.count("finished before") == 3


def test_a_stage_that_stopped_goes_on_in_the_same_directory(tmp_path: pathlib.Path):
    counted = Counted()
    counted.fails = True
    with pytest.raises(RuntimeError, match="out of luck") as error:
        _run(counted, tmp_path)
    assert "in stage 'train'" in error.value.__notes__[0]
    counted.fails = False
    assert "train: goes on" in _run(counted, tmp_path)
    assert counted.calls == ["sample", "train", "train", "report"]
    assert (tmp_path / "03-report" / "report.md").read_text() == "samsam"


def test_a_manifest_records_config_seeds_versions_inputs_and_outputs(tmp_path: pathlib.Path):
    _run(Counted(), tmp_path)
    sample, train = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("01-sample", "02-train"))
    assert train["seeds"] == {"training.seed": 3}
    assert {"jaxrefine", "python", "jax"} <= set(train["versions"])
    assert list(train["inputs"]) == ["sample"]
    assert list(train["outputs"]) == ["part.txt"]
    assert list(sample["outputs"]) == ["samples.txt"]
    assert train["config"] == json.loads((tmp_path / "config.json").read_text())["digest"]


def test_another_config_in_the_same_directory_is_an_error_that_names_the_change(tmp_path: pathlib.Path):
    counted = Counted()
    _run(counted, tmp_path)
    with pytest.raises(StageError) as error:
        _run(counted, tmp_path, Config(training=Training(learning_rate=0.2), steps=6))
    assert "  training.learning_rate: 0.1 -> 0.2\n  steps: 5 -> 6\n" in str(error.value)
    assert "--workdir" in str(error.value)
    assert counted.calls == ["sample", "train", "report"]


def test_an_altered_output_of_a_finished_stage_is_an_error_that_names_it(tmp_path: pathlib.Path):
    counted = Counted()
    _run(counted, tmp_path)
    (tmp_path / "02-train" / "part.txt").write_text("tampered")
    with pytest.raises(StageError, match=r"'train': part\.txt changed or went missing"):
        _run(counted, tmp_path)


def test_a_finished_stage_whose_input_was_made_anew_with_other_content_is_an_error(tmp_path: pathlib.Path):
    counted = Counted()
    _run(counted, tmp_path)
    shutil.rmtree(tmp_path / "01-sample")
    stages = [Stage("sample", lambda path: _write(path / "samples.txt", "others")), *counted.stages()[1:]]
    with pytest.raises(StageError, match="'train' read other artefacts of sample"):
        run_stages(stages, tmp_path, Config(), Console(file=io.StringIO()))


def test_a_finished_stage_stays_finished_when_its_input_is_made_anew_alike(tmp_path: pathlib.Path):
    counted = Counted()
    _run(counted, tmp_path)
    shutil.rmtree(tmp_path / "01-sample")
    _run(counted, tmp_path)
    assert counted.calls == ["sample", "train", "report", "sample"]


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text)


def _nothing(directory: pathlib.Path) -> None:
    pass


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([Stage("a", _nothing), Stage("a", _nothing)], "two stages are called 'a'"),
        ([Stage("sample", _nothing), Stage("b", _nothing, inputs=("sampel",))], "did you mean 'sample'"),
        ([Stage("b", _nothing, inputs=("b",))], "unknown input of stage 'b'"),
        ([Stage("a/b", _nothing)], "'a/b' cannot be"),
    ],
)
def test_a_list_of_stages_that_makes_no_sense_is_refused_before_any_runs(
    stages: list[Stage], said: str, tmp_path: pathlib.Path
):
    with pytest.raises(ValueError, match="stage") as error:
        run_stages(stages, tmp_path / "run", Config())
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_input_that_no_finished_stage_wrote_is_an_error_with_the_nearest(tmp_path: pathlib.Path):
    counted = Counted()
    _run(counted, tmp_path)
    with pytest.raises(FileNotFoundError, match="'sampel'; did you mean 'sample'"):
        input_directory(tmp_path / "02-train", "sampel")


def test_two_runs_in_one_directory_at_once_are_refused(tmp_path: pathlib.Path):
    def run_inside(directory: pathlib.Path) -> None:
        _run(Counted(), tmp_path)

    with pytest.raises(StageError, match="another run is at work"):
        run_stages([Stage("outer", run_inside)], tmp_path, Config(), Console(file=io.StringIO()))


RUN = """
import dataclasses, pathlib, sys, time
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.stages import Stage, input_directory, run_stages

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    records: int = 300

def sample(directory):
    appended = 0
    with Journal(directory / "samples.jsonl") as journal:
        for number in range(300):
            if number not in journal:
                journal.append(number, {"square": number * number})
                print(number, flush=True)
                appended += 1
                time.sleep(600 if str(appended) == sys.argv[2] else 0.001)

def total(directory):
    records = Journal(input_directory(directory, "sample") / "samples.jsonl").records()
    (directory / "total.txt").write_text(str(sum(record["square"] for record in records.values())))

run_stages([Stage("sample", sample), Stage("total", total, inputs=("sample",))], sys.argv[1], Config())
"""


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path: pathlib.Path):
    def start(workdir: pathlib.Path, waits_after: int = 0) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-c", RUN, str(workdir), str(waits_after)]
        root = pathlib.Path(__file__).parent.parent.parent
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root)

    def finish(workdir: pathlib.Path) -> tuple[bytes, bytes]:
        process = start(workdir)
        process.communicate()
        assert process.returncode == 0
        return (workdir / "01-sample" / "samples.jsonl").read_bytes(), (workdir / "02-total" / "total.txt").read_bytes()

    for _ in range(3):
        process = start(tmp_path / "killed", waits_after=90)  # then it is not at its end before it is killed
        assert process.stdout is not None
        for _ in range(40):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not (tmp_path / "killed" / "01-sample" / "manifest.json").exists()
    assert finish(tmp_path / "killed") == finish(tmp_path / "whole")
