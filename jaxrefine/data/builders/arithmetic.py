"""The arithmetic world as a TFDS data set, in array_record files, without TensorFlow.

``Arithmetic(data_dir=...).download_and_prepare()`` writes it, ``as_data_source("train")`` reads it at random; both
work with grain. What is ragged is stored as parallel sequences, which is what TFDS can serialise without TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxrefine.data.arithmetic import SPLITS, ArithmeticConfig, Problem, Tags, problem


@dataclasses.dataclass(kw_only=True)
class ArithmeticBuilderConfig(tfds.core.BuilderConfig):
    """How many problems of what kind; TFDS keeps data sets of different names apart."""

    name: str = "default"
    seed: int = 0
    num_train: int = 20_000
    num_validation: int = 1_000
    num_test: int = 1_000
    difficulty: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)

    def num(self, split: str) -> int:
        """Problems of a split."""
        return {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]


class Arithmetic(tfds.core.GeneratorBasedBuilder):
    """Multi-step word problems with sub-questions, facts, tags and solutions (jaxrefine.data.arithmetic)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012 (TFDS reads a plain dict)
    BUILDER_CONFIGS = [ArithmeticBuilderConfig(description="20,000 problems of two to four steps")]  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"file_format": "array_record", **options})

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = tfds.features.FeaturesDict(
            {
                "id": text,
                "question": text,
                "answer": np.int64,
                "solution": text,
                "sub_questions": tfds.features.Sequence(text),
                "sub_answers": tfds.features.Sequence(np.int64),
                "facts": tfds.features.Sequence(text),
                "operations": tfds.features.Sequence(text),
                "num_steps": np.int64,
                "topic": text,
                "templates": tfds.features.Sequence(text),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Multi-step grade-school word problems from a seeded generator.",
            features=features,
            supervised_keys=("question", "solution"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        for index in range(config.num(split)):
            yield index, to_features(problem(split, index, config.seed, config.difficulty))


def to_features(example: Problem) -> dict[str, Any]:
    """A problem as flat features and parallel sequences."""
    return {
        "id": example.id,
        "question": example.question,
        "answer": example.answer,
        "solution": example.solution,
        "sub_questions": [question for question, _ in example.sub_questions],
        "sub_answers": [answer for _, answer in example.sub_questions],
        "facts": list(example.facts),
        "operations": list(example.tags.operations),
        "num_steps": example.tags.num_steps,
        "topic": example.tags.topic,
        "templates": list(example.tags.templates),
    }


def from_features(features: Mapping[str, Any]) -> Problem:
    """The problem of a record as TFDS reads it (text comes as bytes)."""

    def text(value: Any) -> str:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def texts(name: str) -> tuple[str, ...]:
        return tuple(text(value) for value in features[name])

    answers = (int(answer) for answer in features["sub_answers"])
    return Problem(
        id=text(features["id"]),
        question=text(features["question"]),
        answer=int(features["answer"]),
        solution=text(features["solution"]),
        sub_questions=tuple(zip(texts("sub_questions"), answers, strict=True)),
        facts=texts("facts"),
        tags=Tags(texts("operations"), int(features["num_steps"]), text(features["topic"]), texts("templates")),
    )
