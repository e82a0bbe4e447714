"""The command line: runs go on, mistakes answer at once with exit code 2, and help is fast."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import pytest

from jaxrefine import __version__, cli, config

ROOT = pathlib.Path(__file__).parent.parent

CONFIG = '''"""A toy of two stages.

Command: jaxrefine run toy/tiny
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from jaxrefine.artefacts.stages import Stage, input_directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    name: Literal["dpo", "mle"] = "mle"
    """Which."""
    margin: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    loss: Loss = Loss()
    steps: int = 3
    seed: int = 0

    def stages(self) -> list[Stage]:
        if self.steps == 13:
            raise ValueError("13 steps bring bad luck")
        return [Stage("count", self.count), Stage("report", self.report, inputs=("count",))]

    def count(self, directory: pathlib.Path) -> None:
        with open(directory.parent / "calls.txt", "a") as file:
            file.write("count\\n")
        (directory / "steps.txt").write_text(str(self.steps))

    def report(self, directory: pathlib.Path) -> None:
        (directory / "report.md").write_text((input_directory(directory, "count") / "steps.txt").read_text())


def get_config() -> Toy:
    return Toy()
'''


@pytest.fixture
def toy(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A shipped config ``toy/tiny``, and an empty directory to stand in."""
    directory = tmp_path / "configs"
    (directory / "toy").mkdir(parents=True)
    (directory / "toy" / "tiny.py").write_text(CONFIG)
    monkeypatch.setattr(config, "config_directory", lambda: directory)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def test_run_works_in_a_directory_named_after_the_config(toy: pathlib.Path):
    assert cli.main(["run", "toy/tiny"]) == 0
    assert (toy / "runs" / "toy" / "tiny" / "02-report" / "report.md").read_text() == "3"


@pytest.mark.parametrize("flag", [["--workdir", "here"], ["--workdir=here"]])
def test_overrides_and_the_work_directory_are_taken_from_the_line(toy: pathlib.Path, flag: list[str]):
    assert cli.main(["run", "toy/tiny", *flag, "--steps", "4", "--loss.name", "dpo"]) == 0
    assert (toy / "here" / "02-report" / "report.md").read_text() == "4"
    assert json.loads((toy / "here" / "config.json").read_text())["config"]["loss"]["name"] == "dpo"


def test_a_run_given_twice_runs_once(toy: pathlib.Path):
    assert cli.main(["run", "toy/tiny"]) == 0
    assert cli.main(["run", "toy/tiny"]) == 0
    assert (toy / "runs" / "toy" / "tiny" / "calls.txt").read_text() == "count\n"


def test_a_run_with_another_config_in_the_same_directory_names_the_change(
    toy: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["run", "toy/tiny", "--workdir", "here"]) == 0
    assert cli.main(["run", "toy/tiny", "--workdir", "here", "--loss.margin", "0.2"]) == cli.USAGE_ERROR
    assert "loss.margin: 0.1 -> 0.2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["rnu", "toy/tiny"], ["'rnu'", "did you mean 'run'", "Allowed: convert, inspect, plan, route, run, show"]),
        (["run", "toy/tyni"], ["'toy/tyni'", "did you mean 'toy/tiny'"]),
        (["run"], ["which config?", "toy/tiny", "usage: jaxrefine run CONFIG"]),
        (["run", "--steps", "3", "toy/tiny"], ["the config comes before its flags"]),
        (["run", "toy/tiny", "--setps", "3"], ["'--setps'", "did you mean '--steps'", "--loss.margin"]),
        (["run", "toy/tiny", "--loss.name", "dbo"], ["'dbo'", "did you mean 'dpo'", "Allowed: dpo, mle"]),
        (["run", "toy/tiny", "--steps", "three"], ["--steps", "'three'"]),
        (["run", "toy/tiny", "--steps", "13"], ["toy/tiny: 13 steps bring bad luck"]),
        (["run", "toy/tiny", "--workdir"], ["--workdir wants a directory"]),
        (["run", "toy/tiny", "--workdir", "--steps", "3"], ["--workdir wants a directory"]),
        (["show", "toy/tiny", "--workdir", "x"], ["show takes no --workdir"]),
        (["inspect"], ["inspect wants SRC, not 0 words", "usage: jaxrefine inspect SRC"]),
        (["convert", "a"], ["convert wants SRC and DST, not 1 words", "--to hf|orbax"]),
        (["convert", "a", "b", "--too", "hf"], ["'--too'", "did you mean '--to'"]),
        (["convert", "a", "b", "--to"], ["--to wants a value"]),
        (["convert", "no/such", "b"], ["no/such: no such directory"]),
        (["convert", "no/such", "b", "--to", "hff"], ["'hff'", "did you mean 'hf'"]),
    ],
)
def test_a_mistake_is_explained_before_anything_runs(
    toy: pathlib.Path, capsys: pytest.CaptureFixture[str], line: list[str], said: list[str]
):
    assert cli.main(line) == cli.USAGE_ERROR
    error = capsys.readouterr().err
    for words in said:
        assert words in error
    assert list(toy.iterdir()) == []


@pytest.mark.usefixtures("toy")
def test_show_prints_the_header_and_every_value_as_overridden(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["show", "toy/tiny", "--loss.margin", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "# A toy of two stages." in lines
    assert lines[-4:] == ["loss.name = 'mle'", "loss.margin = 0.5", "steps = 3", "seed = 0"]


@pytest.mark.usefixtures("toy")
def test_help_of_a_config_lists_its_flags(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "toy/tiny", "--help"])
    assert stop.value.code == 0
    assert "--loss.name {dpo,mle}" in capsys.readouterr().out


@pytest.mark.usefixtures("toy")
def test_help_lists_the_commands_and_the_shipped_configs(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "  toy/tiny" in shown
    for name, command in cli.COMMANDS.items():
        assert f"  {name} {command.arguments}" in shown


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxrefine {__version__}\n"


def test_a_config_without_stages_cannot_be_run(toy: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    text = "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: int = 1\ndef get_config():\n    return C()\n"
    (toy / "mine.py").write_text(text)
    assert cli.main(["run", "mine.py"]) == cli.USAGE_ERROR
    assert "C has no stages()" in capsys.readouterr().err


@pytest.mark.parametrize("line", [["--help"], ["rnu"], ["run", "no/such"], ["run"], ["--version"]])
def test_help_and_mistakes_answer_without_importing_a_heavy_library(line: list[str]):
    program = (
        "import sys\nfrom jaxrefine.cli import main\n"
        f"main({line!r})\n"
        "heavy = {'jax', 'flax', 'numpy', 'tyro', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert finished.returncode == 0, finished.stderr


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_takes_less_than_half_a_second_of_one_core():
    seconds = []
    while len(seconds) < 5 and min(seconds, default=1.0) >= 0.5:  # one that others crowd out takes longer
        before = _cpu_seconds_of_children()
        subprocess.run([sys.executable, "-m", "jaxrefine", "--help"], check=True, capture_output=True, cwd=ROOT)
        seconds.append(_cpu_seconds_of_children() - before)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_shipped_configs_are_found_from_anywhere(how: str, tmp_path: pathlib.Path):
    site = tmp_path / "environment" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    pytest.importorskip("pip", reason="pip, which installs here, is not installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "environment"], check=True)
    python = tmp_path / "environment" / "bin" / "python"
    copy = tmp_path / "checkout"
    _copy_checkout(copy)
    # what jaxrefine depends on, and setuptools, come from this environment
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    finished = subprocess.run(
        [*install, *(["-e"] if how == "editable" else []), copy], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    (tmp_path / "elsewhere").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    name = next(iter(config.shipped()))
    listed, shown = (
        subprocess.run(
            [tmp_path / "environment" / "bin" / "jaxrefine", *line],
            capture_output=True,
            text=True,
            cwd=tmp_path / "elsewhere",
            env=environment,
            check=False,
        )
        for line in (["--help"], ["show", name])
    )
    assert {f"  {name}" for name in config.shipped()} <= set(listed.stdout.splitlines())
    assert shown.returncode == 0, shown.stderr
    root = copy if how == "editable" else site / "jaxrefine"
    assert shown.stdout.splitlines()[0] == f"# {root.resolve() / 'configs' / name}.py"


def _copy_checkout(target: pathlib.Path) -> None:
    target.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)
    for name in ("jaxrefine", "configs"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
