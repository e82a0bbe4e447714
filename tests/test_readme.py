"""The README says nothing that does not run: its Python blocks are executed, its commands and paths checked."""

from __future__ import annotations

import itertools
import pathlib
import re
import shlex

import pytest

from jaxrefine import config
from jaxrefine.cli import COMMANDS

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def _commands() -> list[list[str]]:
    lines = [part.strip() for block in _blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("code", _blocks("python"), ids=lambda code: code.split("\n")[0][:40])
def test_a_python_block_runs(code: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_the_first_python_block_prints_the_value_that_it_promises(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(_blocks("python")[0], "README.md", "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[0]) == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("words", [w for w in _commands() if w[0] == "jaxrefine"], ids=" ".join)
def test_a_command_names_what_is_there(words: list[str]) -> None:
    usage = COMMANDS[words[1]].arguments
    known = set(re.findall(r"--[a-z-]+", usage))
    given = [word for word in words[2:] if word.startswith("--")]
    if usage.startswith("CONFIG"):
        known |= {"--" + path.replace("_", "-") for path in config.flatten(config.load(words[2]))}
    else:
        valued = set(re.findall(r"(--[a-z-]+) [^\]]", usage))
        places = [word for before, word in itertools.pairwise(words[1:]) if before not in valued]
        assert len([word for word in places if word not in given]) == len(re.findall(r"\b(?:SRC|DST|DIR)\b", usage))
    assert set(given) <= known


def test_every_picture_and_linked_file_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_two_commands_are_an_installation_and_a_run_each() -> None:
    commands = _commands()
    assert ["jaxrefine", "run", "loss_variants/tiny"] in commands
    assert any(words[:3] == ["python", "-m", "pytest"] for words in commands)
