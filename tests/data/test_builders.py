"""The TFDS builder gives back the generator's problems, without TensorFlow."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

import jaxrefine
from jaxrefine.data.arithmetic import SPLITS, ArithmeticConfig, generate

DIFFICULTY = ArithmeticConfig(min_steps=1, max_steps=3)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory):
    from jaxrefine.data.builders.arithmetic import Arithmetic, ArithmeticBuilderConfig

    config = ArithmeticBuilderConfig(
        name="small", seed=3, num_train=40, num_validation=5, num_test=7, difficulty=DIFFICULTY
    )
    made = Arithmetic(config=config, data_dir=tmp_path_factory.mktemp("tfds"))
    made.download_and_prepare()
    return made


@pytest.mark.parametrize(("split", "num"), [("train", 40), ("validation", 5), ("test", 7)])
def test_the_data_source_holds_the_generators_problems(builder, split: str, num: int) -> None:
    from jaxrefine.data.builders.arithmetic import from_features

    source = builder.as_data_source(split)
    assert len(source) == num
    found = {from_features(source[index]) for index in range(num)}
    assert found == set(generate(split, num, 3, DIFFICULTY))


def test_parts_of_a_split_can_be_read(builder) -> None:
    assert len(builder.as_data_source("train[:50%]")) == 20


def test_the_files_can_be_read_without_the_builder(builder) -> None:
    import tensorflow_datasets as tfds

    from jaxrefine.data.builders.arithmetic import from_features

    found = tfds.builder_from_directory(builder.data_dir)
    assert set(found.info.splits) == set(SPLITS)
    assert {from_features(record) for record in found.as_data_source("test")} == set(generate("test", 7, 3, DIFFICULTY))


def test_the_files_are_array_records(builder) -> None:
    files = [file.name for file in pathlib.Path(builder.data_dir).iterdir()]
    assert sum("array_record" in name for name in files) == 3


def test_tensorflow_is_never_imported(tmp_path: pathlib.Path) -> None:
    """In a process of its own, from the import to the last record read."""
    program = f"""
import sys
from jaxrefine.data.builders.arithmetic import Arithmetic, ArithmeticBuilderConfig
config = ArithmeticBuilderConfig(name="tiny", num_train=3, num_validation=1, num_test=1)
builder = Arithmetic(config=config, data_dir={str(tmp_path)!r})
builder.download_and_prepare()
assert len(list(builder.as_data_source("train"))) == 3
print("imported" if "tensorflow" in sys.modules else "clean")
"""
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(jaxrefine.__file__).parent.parent)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.split()[-1] == "clean"
