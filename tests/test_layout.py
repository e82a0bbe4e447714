"""The layout: import order, sizes, names, what is packaged, and that every shipped config resolves."""

from __future__ import annotations

import ast
import configparser
import pathlib
import re
import subprocess
import sys

import pytest

from jaxrefine import config

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "jaxrefine"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TEXTS = [*SOURCES, *sorted((ROOT / "configs").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]
LONGEST_FILE = 400

LAZY = {
    "tyro": "0.2 s, needed only for overrides",
    "rouge_score": "6 s",
    "matplotlib": "1 s",
    "transformers": "3 s",
    "openai": "1 s, in the extra endpoint",
    "tenacity": "in the extra endpoint",
    "ray": "1 s, an extra",
    "lm_eval": "seconds, an extra",
    "tokenizers": "optional until a model with text is read",
    "tensorflow_datasets": "1.6 s",
    "array_record": "comes with the TFDS builders",
    "grain": "4 s",
    "orbax": "2 s",
    "tensorboardX": "one of the optional writers",
    "wandb": "an extra",
    "math_verify": "1 s, and only the grading workers compare symbolically",
    "sympy": "1 s, as math_verify",
    "IPython": "in notebooks only",
    "jaxrefine": "the command line imports what a command needs when it runs",
}
"""What may be imported inside a function, and why: this is the one list (README, "Style")."""


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _name(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_modules_import_only_from_the_layers_below():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    finished = subprocess.run(
        [*command, "--no-cache", "--config", str(ROOT / "setup.cfg")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_packages_in_setup_cfg_are_those_on_disk():
    listed = _setup()["options"]["packages"].split()
    on_disk = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert listed == sorted(set(listed))
    assert set(listed) == on_disk | {"jaxrefine.configs"}


def test_every_directory_of_sources_is_a_package():
    assert [path for path in SOURCES if not (path.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_source_file_is_short_and_says_what_it_is(path: pathlib.Path):
    text = path.read_text()
    assert len(text.splitlines()) < LONGEST_FILE
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_module_is_a_drawer_of_odds_and_ends(path: pathlib.Path):
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "misc", "tools"}


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_only_listed_libraries_are_imported_inside_functions(path: pathlib.Path):
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    inside = {name for function in functions for node in ast.walk(function) for name in _imports(node)}
    surprising = {name for name in inside if name.partition(".")[0] not in LAZY}
    assert not surprising, f"{path}: {surprising} inside a function; LAZY in {__file__} lists what may be"
    if path.stem != "cli":
        assert not {name for name in inside if name.partition(".")[0] == "jaxrefine"}


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_no_file_names_a_place_on_one_machine(path: pathlib.Path):
    absolute = re.compile(r"""["'\s(](/(?:home|root|work|tmp|mnt|Users)/\w+)""")
    assert absolute.findall(path.read_text()) == []


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, jaxrefine\nassert not {'jax', 'numpy', 'flax', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=_name)
def test_tests_mirror_the_package(path: pathlib.Path):
    directory = path.parent.relative_to(ROOT / "tests")
    assert directory.parts[:1] in {(), ("configs",), ("benchmarks",), ("faults",)} or (PACKAGE / directory).is_dir()


def test_there_are_shipped_configs():
    assert "loss_variants/tiny" in config.shipped()


@pytest.mark.parametrize("name", config.shipped())
def test_a_shipped_config_says_what_it_is_what_it_costs_and_what_to_expect(name: str):
    header = config.header(name)
    for said in (f"jaxrefine run {name}", "Cost:", "Result:|Expected:"):
        assert re.search(said, header), f"the docstring of configs/{name}.py lacks {said!r}"


@pytest.mark.parametrize("name", config.shipped())
def test_a_shipped_config_lists_its_stages_or_says_which_file_to_give(name: str):
    configured = config.load(name)
    assert config.digest(configured) == config.digest(config.load(name))
    stages, refusal = [], ""
    try:
        stages = [stage.name for stage in configured.stages()]
    except ValueError as error:
        refusal = str(error)
    assert stages or re.search(r"give yours with --\w+", refusal), refusal
    assert len(set(stages)) == len(stages)


@pytest.mark.parametrize("name", config.shipped())
def test_a_shipped_config_can_be_overridden_from_the_command_line(name: str):
    with pytest.raises(SystemExit) as stop:
        config.override(config.load(name), ["--help"])
    assert stop.value.code == 0
