"""Configs: found by name or path, overridden with types, described and digested by content."""

from __future__ import annotations

import dataclasses
import enum
import os
import pathlib
import subprocess
import sys
from typing import Any, Literal

import numpy as np
import pytest

from jaxrefine import config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The optimiser."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    """Peak."""
    schedule: Literal["cosine", "linear"] | None = None

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is above 0, not {self.learning_rate}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant."""

    loss: str = "mle"
    options: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment."""

    optimizer: Optimizer = Optimizer()
    variants: tuple[Variant, ...] = (Variant(), Variant(loss="dpo", options={"beta": 0.1}))
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 10
    shuffle: bool = True


EXPERIMENT = Experiment()


def _file(directory: pathlib.Path, text: str, name: str = "mine.py") -> pathlib.Path:
    path = directory / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        (["--optimizer.learning-rate", "2e-5"], "optimizer.learning_rate", 2e-5),
        (["--optimizer.learning_rate=2e-5"], "optimizer.learning_rate", 2e-5),
        (["--optimizer.name", "sgd"], "optimizer.name", "sgd"),
        (["--optimizer.schedule", "linear"], "optimizer.schedule", "linear"),
        (["--optimizer.schedule", "None"], "optimizer.schedule", None),
        (["--seeds", "3", "4", "5"], "seeds", (3, 4, 5)),
        (["--variants.1.options.beta", "0.5"], "variants.1.options.beta", 0.5),
        (["--no-shuffle"], "shuffle", False),
    ],
)
def test_a_flag_replaces_its_leaf_and_no_other(flags: list[str], path: str, value: Any):
    before, after = config.flatten(EXPERIMENT), config.flatten(config.override(EXPERIMENT, flags))
    assert after == before | {path: value}


def test_without_flags_the_config_is_the_same():
    assert config.override(EXPERIMENT, []) is EXPERIMENT


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--optimizer.lerning-rate", "2"], ["--optimizer.lerning-rate", "did you mean '--optimizer.learning-rate'"]),
        (["--variants.1.lose", "x"], ["did you mean '--variants.1.loss'", "--variants.N.loss"]),
        (["--stpes=2"], ["--stpes", "did you mean '--steps'", "--seeds"]),
        (["--optimizer.name", "adam"], ["'adam'", "did you mean 'adamw'", "Allowed: adamw, sgd"]),
        (["--optimizer.schedule=cosin"], ["'cosin'", "did you mean 'cosine'", "Allowed: None, cosine, linear"]),
        (["--steps", "many"], ["--steps", "'many'", "INT"]),
        (["--optimizer.learning-rate", "-1"], ["learning_rate is above 0, not -1.0"]),
        (["stray"], ["'stray'", "--dotted.path"]),
    ],
)
def test_a_mistaken_override_says_given_allowed_and_nearest(flags: list[str], said: list[str]):
    with pytest.raises(config.ConfigError) as error:
        config.override(EXPERIMENT, flags)
    for words in said:
        assert words in str(error.value)


def test_help_lists_flags_with_types_and_their_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        config.override(EXPERIMENT, ["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--optimizer.learning-rate FLOAT" in shown
    assert "Peak." in shown


def test_a_file_of_ones_own_loads_by_path_with_dataclasses_of_its_own(tmp_path: pathlib.Path):
    text = (
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Mine:\n    steps: int = 3\n"
        "def get_config():\n    return Mine()\n"
    )
    loaded = config.load(_file(tmp_path, text))
    assert config.flatten(config.override(loaded, ["--steps", "4"])) == {"steps": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "defines get_config()"),
        ("def get_config():\n    return {}\n", "returns a dataclass, not dict"),
        ("import os\n\nos.nonsense\n", ":3: AttributeError"),
        ("def get_config()\n", ":1: SyntaxError"),
        ("def get_config():\n    x = 1\n    return x.y\n", ":3: AttributeError"),
    ],
)
def test_a_broken_config_file_is_an_error_with_file_and_line(tmp_path: pathlib.Path, text: str, said: str):
    path = _file(tmp_path, text)
    with pytest.raises(config.ConfigError) as error:
        config.load(path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)


@pytest.fixture
def shipped_configs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A stand-in for the directory of shipped configs."""
    directory = tmp_path / "configs"
    (directory / "tuna").mkdir(parents=True)
    text = "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: int = 1\ndef get_config():\n    return C()\n"
    _file(directory / "tuna", '"""Tuna."""\n' + text, "tiny.py")
    _file(directory / "tuna", text, "small.py")
    monkeypatch.setattr(config, "config_directory", lambda: directory)
    return directory


@pytest.mark.parametrize("name", ["tuna/tiny", "tuna/tiny.py", "configs/tuna/tiny.py", "configs/tuna/tiny"])
@pytest.mark.usefixtures("shipped_configs")
def test_a_shipped_config_is_found_by_its_name_from_any_directory(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert config.load(name).x == 1
    assert config.name_of(config.find(name)) == "tuna/tiny"
    assert config.header(name) == "Tuna."


@pytest.mark.usefixtures("shipped_configs")
def test_an_unknown_config_says_given_allowed_and_nearest():
    with pytest.raises(config.ConfigError, match="'tuna/tyny'; did you mean 'tuna/tiny'.*tuna/small, tuna/tiny"):
        config.find("tuna/tyny")


def test_the_nearest_name_is_also_found_by_a_part_of_it():
    assert "did you mean 'margin_ranking'?" in config.unknown_name("rank", ["dpo", "margin_ranking"], "loss")


def test_a_name_that_resembles_none_gets_the_list_alone():
    assert config.unknown_name("zzz", ["b", "a"], "loss") == "unknown loss 'zzz'. Allowed: a, b"


class Colour(enum.Enum):
    """An enum."""

    RED = 1
    BLUE = 2


DIFFERENT: list[Any] = [
    None,
    True,
    1,
    2.0,
    1.5,
    "1",
    "None",
    float("inf"),
    float("-inf"),
    "inf",
    (1, 2),
    (2, 1),
    ((1,), 2),
    b"1",
    {"a": 1},
    {"a": 1, "b": 2},
    Colour.RED,
    Colour.BLUE,
    np.arange(3),
    np.arange(3.0),
    np.arange(4),
    np.zeros((2, 3)),
    np.zeros((3, 2)),
    np.float32,
    np.dtype("float16"),
    pathlib.Path("x"),
    Optimizer(),
    Optimizer(learning_rate=0.1),
    dataclasses.asdict(Optimizer()),
    max,
    os.path.join,
]


def test_different_contents_have_different_digests():
    assert len({config.digest(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_a_digest_is_the_same_in_another_process():
    program = "from jaxrefine.config import digest; print(digest({'b': frozenset('xyz'), 'a': (1, 0.1, None)}))"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(__file__).parent.parent,
    )
    assert printed.stdout.strip() == config.digest({"a": [1, 0.1, None], "b": frozenset("zyx")})


def test_what_has_no_stable_content_is_refused_with_its_path():
    with pytest.raises(TypeError, match=r"optimizer\.schedule: <function"):
        config.digest({"optimizer": {"schedule": lambda step: step}})


def test_changes_name_dotted_paths_old_and_new():
    changed = config.override(EXPERIMENT, ["--optimizer.name", "sgd", "--seeds", "0"])
    assert config.changes(EXPERIMENT, changed) == [("optimizer.name", "adamw", "sgd"), ("seeds", [0, 1], [0])]


def test_a_description_survives_json():
    import json

    assert config.changes(json.loads(json.dumps(config.describe(EXPERIMENT))), EXPERIMENT) == []


@pytest.mark.parametrize("value", ["True", "false", "1"])
def test_a_switch_with_a_value_is_told_how_it_is_set(value: str):
    with pytest.raises(config.ConfigError, match=rf"'{value}': --shuffle is a switch.*--no-shuffle turns it off"):
        config.override(EXPERIMENT, ["--shuffle", value])
    assert not config.override(EXPERIMENT, ["--no-shuffle"]).shuffle
    assert config.override(EXPERIMENT, ["--shuffle"]).shuffle
