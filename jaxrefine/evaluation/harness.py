"""lm-eval on models of ours: its own tasks, tasks from YAML files, and instructions with known answers as one more.

Source: Gao et al., lm-evaluation-harness, github.com/EleutherAI/lm-evaluation-harness.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrefine.artefacts.atomic import write_text
from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.data.examples import Instruction
from jaxrefine.data.jsonl import write_jsonl
from jaxrefine.evaluation.harness_model import harness_model, numbers

OWN = "known_answers"
"""The name of the task of one's own."""

_TASK = """\
# Instructions with known answers: the first answer that a text states as "#### ANSWER" has to be the known one.
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: []
  do_sample: false
  max_gen_toks: {max_new_tokens}
filter_list:
  - name: stated
    filter:
      - function: regex
        regex_pattern: "#### ([^\\\\n]+)"
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HarnessConfig:
    """What lm-eval is asked; nothing by default."""

    own: bool = False
    """The test tasks with known answers, as a task of lm-eval: needs no network."""
    tasks: tuple[str, ...] = ()
    """lm-eval's tasks or groups, by its names; it downloads their data."""
    include: str = ""
    """A directory of task files of one's own, which ``tasks`` may name."""
    num_fewshot: int | None = None
    """Examples before each question of ``tasks``; None is each task's own number."""
    limit: int | None = None
    """Of ``tasks``, the first so many questions each; None is all."""
    slots: int = 64
    """Texts that grow at once."""

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to ask."""
        return self.own or bool(self.tasks)

    def check(self, flag: str) -> None:
        """Refuses what is not there, before anything runs.

        Args:
            flag: of the command line, which sets this.

        Raises:
            ValueError: lm-eval is not installed, no such directory, or one without a task of it.
        """
        if self.include and not pathlib.Path(self.include).expanduser().is_dir():
            raise ValueError(f"there is no directory {self.include}; give yours with --{flag}.include DIRECTORY")
        if self.include and not self.tasks:
            raise ValueError(f"--{flag}.include has task files; say which with --{flag}.tasks NAME …")
        if self.is_wanted and importlib.util.find_spec("lm_eval") is None:
            raise ValueError("lm-eval is not installed: pip install 'jaxrefine[lm-eval]'")


def write_own_task(tasks: Sequence[Instruction], directory: pathlib.Path, *, max_new_tokens: int) -> pathlib.Path:
    """Instructions with answers as a task of lm-eval; ``lm_eval --include_path DIRECTORY --tasks known_answers`` too.

    Args:
        tasks: with answers, each stated in a text as ``#### ANSWER``.
        directory: gets the task's file and its data; made if need be.
        max_new_tokens: of a text.

    Returns:
        The task's file.

    Raises:
        ValueError: no tasks, or one without an answer.
    """
    if not tasks or any(task.answer is None for task in tasks):
        raise ValueError(f"of {len(tasks)} tasks {sum(task.answer is None for task in tasks)} have no known answer")
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / f"{OWN}.jsonl"
    write_jsonl(data, [{"id": task.id, "prompt": task.prompt, "answer": str(task.answer)} for task in tasks])
    file = directory / f"{OWN}.yaml"
    # JSON's strings are YAML's too
    write_text(file, _TASK.format(name=OWN, file=json.dumps(str(data.resolve())), max_new_tokens=max_new_tokens))
    return file


def ask_harness(
    model: LoadedModel, config: HarnessConfig, own: pathlib.Path | None, *, max_new_tokens: int = 256
) -> dict[str, dict[str, float]]:
    """What lm-eval measures of a model.

    Args:
        model: a decoder with its tokenizer.
        config: what is asked.
        own: the file of the task of one's own, where it is asked.
        max_new_tokens: of texts, where a task does not say.

    Returns:
        {task: {metric: value}}, the metrics by lm-eval's names ("acc,none"), standard errors among them.

    Raises:
        ImportError: lm-eval is not installed.
        ValueError: no such task.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    paths = [str(pathlib.Path(path).expanduser()) for path in (own.parent if own else "", config.include) if path]
    known = TaskManager(include_path=paths or None, include_defaults=bool(config.tasks))
    lm = harness_model(model, slots=config.slots, max_new_tokens=max_new_tokens)
    found: dict[str, dict[str, float]] = {}
    # The task of one's own is asked apart: neither examples nor a limit are for it.
    parts: list[tuple[list[str], dict[str, Any]]] = [([OWN], {})] if own else []
    if config.tasks:
        parts.append((list(config.tasks), {"num_fewshot": config.num_fewshot, "limit": config.limit}))
    for names, options in parts:
        measured = lm_eval.simple_evaluate(
            model=lm, tasks=names, task_manager=known, log_samples=False, bootstrap_iters=1000, **options
        )
        found |= {name: numbers(results) for name, results in measured["results"].items()}
    return found


def headline(metrics: Mapping[str, float]) -> tuple[str, float, float]:
    """The metric to show of a task, its value and standard error (NaN where there is none).

    Normalised accuracy comes first, as leaderboards have it, then accuracy, then exact matches, then what is first.

    >>> headline({"acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.6})
    ('acc_norm,none', 0.6, nan)
    """
    values = {name: value for name, value in metrics.items() if "_stderr," not in name and "," in name}
    wanted = ("acc_norm,", "acc,", "exact_match,")
    order = sorted(values, key=lambda name: next((n for n, one in enumerate(wanted) if name.startswith(one)), 9))
    if not order:
        return "", math.nan, math.nan
    metric, _, kind = order[0].partition(",")
    return order[0], values[order[0]], metrics.get(f"{metric}_stderr,{kind}", math.nan)
