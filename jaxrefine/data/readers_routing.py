"""Readers of queries with a reward for each model: our own JSON lines, and public judgements of many models' answers.

Tags are in ``tags``, the names of the subsets that a query belongs to in ``meta["subsets"]``. A reward that nobody
gave is None.
"""

from __future__ import annotations

import csv
import gzip
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Candidates, Routed
from jaxrefine.data.jsonl import Fields, RecordError, distinct, read_jsonl, write_jsonl

ALPACA_EVAL_MODELS = (
    "alpaca-7b", "claude", "gpt-3.5-turbo-0301", "gpt4", "gpt4_1106_preview", "llama-2-13b-chat-hf",
    "oasst-rlhf-llama-33b", "text_davinci_003", "vicuna-13b", "wizardlm-13b",
)  # fmt: skip
"""Models of AlpacaEval that are routed between unless others are named."""
_REFERENCES = {"alpaca_eval_gpt4": "text_davinci_003", "weighted_alpaca_eval_gpt4_turbo": "gpt4_1106_preview"}
_DRAWS = (0.0, 1.5)
_ROUTELLM = ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")


def read_routed(
    path: pathlib.Path | str, *, rejects: pathlib.Path | str | None = None, max_rejects: int = 100
) -> list[Routed]:
    r"""Queries with the reward of each model's answer: higher is better, null is unknown.

    A line: ``{"id": "1", "prompt": "2+3?\n", "models": ["small", "large"], "rewards": [0, 1], "tags": ["sum"]}``.
    ``tags`` may be left out; so may ``meta`` (an object, kept as it is), whose ``subsets`` is a list of names.

    Args:
      path: a ``.jsonl`` or ``.jsonl.gz`` file.
      rejects: where malformed lines go; None stops at the first.
      max_rejects: with more malformed lines than this, reading fails all the same.
    Raises:
      RecordError: ``file:line: field: reason``.
    """

    def parse(fields: Fields) -> Routed:
        id, prompt, models = fields.text("id"), fields.text("prompt"), fields.texts("models")
        rewards = [item.optional_number("item") for item in fields.items("rewards")]
        tags = fields.texts("tags") if "tags" in fields.names() else []
        meta = fields.mapping("meta")
        fields.done()
        found = meta.get("subsets", [])
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise fields.error("meta.subsets", f"a list of strings is wanted, got {found!r}")
        return Routed(id, prompt, tuple(models), tuple(rewards), tuple(tags), meta)

    return read_jsonl(path, parse, key=lambda record: record.id, rejects=rejects, max_rejects=max_rejects)


def write_routed(path: pathlib.Path | str, queries: Iterable[Routed]) -> None:
    """Writes what ``read_routed`` reads, atomically; reading it gives equal queries.

    Raises:
      ValueError: the same id twice, or a number that JSON does not hold.
    """
    write_jsonl(
        path,
        (
            {
                "id": query.id,
                "prompt": query.prompt,
                "models": list(query.models),
                "rewards": list(query.rewards),
                "tags": list(query.tags),
            }
            | ({"meta": dict(query.meta)} if query.meta else {})
            for query in distinct(path, queries)
        ),
    )


def subsets_of(query: Routed) -> tuple[str, ...]:
    """The subsets that a query is in, ``meta["subsets"]``, possibly none; the one subset "all" where that is absent.

    >>> subsets_of(Routed("1", "Hello?", ("a",), (1.0,)))
    ('all',)
    """
    return tuple(query.meta.get("subsets", ("all",)))


def routed(example: Candidates) -> Routed:
    """Judged candidates, one of each model, as a query to be routed: labels become rewards.

    ``meta["models"]`` names the models in the order of the responses; ``meta["tags"]`` are the tags, if there are any.

    Raises:
      ValueError: no names of models, or not as many as responses.

    >>> routed(Candidates("1", "2+3?", ("5", "6"), (1.0, 0.0), meta={"models": ["small", "large"]})).rewards
    (1.0, 0.0)
    """
    models = example.meta.get("models")
    if not isinstance(models, (list, tuple)) or len(models) != len(example.responses):
        raise ValueError(
            f'example {example.id!r}: meta["models"] names the model of each of its {len(example.responses)} responses;'
            f" got {models!r}"
        )
    meta = {name: value for name, value in example.meta.items() if name not in ("models", "tags")}
    return Routed(example.id, example.prompt, tuple(models), example.labels, tuple(example.meta.get("tags", ())), meta)


def read_alpaca_eval(
    directory: pathlib.Path | str,
    *,
    models: Sequence[str] = ALPACA_EVAL_MODELS,
    judge: Literal["alpaca_eval_gpt4", "weighted_alpaca_eval_gpt4_turbo"] = "alpaca_eval_gpt4",
) -> list[Routed]:
    """AlpacaEval: rewards are GPT-4's preferences for a model's answer over that of a reference model, in [0, 1].

    1 is better, 0 worse, 1/2 a draw, which the reference itself has everywhere; version 2 gives values between. None
    where the judge failed. The one tag and subset is the query's source.

    Args:
      directory: with ``query_index.jsonl`` and ``annotations_<judge>.jsonl``, plain or ``.gz``.
      models: to route between.
      judge: version 1 (against text_davinci_003) or version 2 (against gpt4_1106_preview).
    Raises:
      RecordError: ``file:line: field: reason``.
      ValueError: a model that was not judged.

    Source: Li et al. 2023, AlpacaEval; Dubois et al. 2024, https://arxiv.org/abs/2404.04475 (version 2)
    """
    directory = pathlib.Path(directory)
    rewards: dict[int, dict[str, float | None]] = {}
    judged: set[str] = {_REFERENCES[judge]}

    def annotation(fields: Fields) -> None:
        model, query = fields.text("model"), int(fields.number("query_index"))
        preference = fields.optional_number("preference")
        judged.add(model)
        if preference is None:
            value = None
        elif preference in _DRAWS:
            value = 0.5
        elif 1.0 <= preference <= 2.0:
            value = preference - 1.0
        else:
            raise fields.error("preference", f"0, 1.5 or a number in 1..2 is wanted, got {preference:g}")
        rewards.setdefault(query, {})[model] = value

    def line(fields: Fields) -> Routed:
        number, source = int(fields.number("query_index")), fields.text("dataset")
        found = {_REFERENCES[judge]: 0.5, **rewards.get(number, {})}
        values = tuple(found.get(model) for model in models)
        return Routed(
            f"alpaca_eval-{number}", fields.text("instruction"), tuple(models), values, (source,), {"subsets": [source]}
        )

    read_jsonl(_file(directory, f"annotations_{judge}.jsonl"), annotation)
    for model in models:
        if model not in judged:
            raise ValueError(unknown_name(model, sorted(judged), f"model that {judge} judged"))
    return read_jsonl(_file(directory, "query_index.jsonl"), line, key=lambda record: record.id)


def read_mt_bench(
    directory: pathlib.Path | str, *, turns: Sequence[int] = (1,), sources: Sequence[str] | None = None
) -> list[Routed]:
    """MT-Bench: rewards are GPT-4's ratings of single answers, 1 to 10, the mean where there are several.

    Queries that nobody rated are left out. The one tag and subset is the category.

    Args:
      directory: with ``question.jsonl`` and ``model_judgment/gpt-4_single.jsonl``, plain or ``.gz``.
      turns: whose ratings count; a router sees the first question only.
      sources: of the judgements, by ``source_repo``; None is all. Versions of GPT-4 differ between them.
    Raises:
      RecordError: ``file:line: field: reason``.
      ValueError: no judgements of these turns and sources.

    Source: Zheng et al. 2023, https://arxiv.org/abs/2306.05685
    """
    directory = pathlib.Path(directory)
    ratings: dict[tuple[int, str], list[float]] = {}

    def judgement(fields: Fields) -> None:
        source = fields.text("source_repo")
        query, model, turn = int(fields.number("question_id")), fields.text("model"), int(fields.number("turn"))
        score = fields.number("score")
        if turn in turns and (sources is None or source in sources):
            found = ratings.setdefault((query, model), [])
            if score >= 0:  # −1 stands for a rating that could not be read
                found.append(score)

    def question(fields: Fields) -> Routed | None:
        number, category = int(fields.number("question_id")), fields.text("category")
        prompt = fields.texts("turns")[0]
        values = tuple(_mean(ratings.get((number, model), ())) for model in models)
        if all(value is None for value in values):
            return None
        return Routed(f"mt_bench-{number}", prompt, models, values, (category,), {"subsets": [category]})

    read_jsonl(_file(directory, "model_judgment/gpt-4_single.jsonl"), judgement)
    models = tuple(sorted({model for _, model in ratings}))
    if not models:
        raise ValueError(f"{directory}: no judgements of turns {tuple(turns)} from {sources or 'any source'}")
    found = read_jsonl(_file(directory, "question.jsonl"), question)
    return [query for query in found if query is not None]


def read_flask(
    directory: pathlib.Path | str, *, score: Callable[[str, str], float] | None = None, difficulties: bool = False
) -> list[Routed]:
    """FLASK: queries with skills and domains, and 15 models' answers, which a function of yours rewards.

    Its own reviews are not public: without ``score`` every reward is None. Skills and domains are tags, the domains
    also subsets. Queries without answers are left out.

    Args:
      directory: with ``flask_evaluation.jsonl`` and ``outputs/<model>.jsonl``, plain or ``.gz``.
      score: (the reference answer, a model's answer) to a reward.
      difficulties: whether the difficulty is a tag as well.
    Raises:
      RecordError: ``file:line: field: reason``.
      FileNotFoundError: no outputs.

    Source: Ye et al. 2023, https://arxiv.org/abs/2307.10928
    """
    directory = pathlib.Path(directory)
    files = sorted((directory / "outputs").glob("*.jsonl*"))
    if not files:
        raise FileNotFoundError(f"{directory / 'outputs'}: no outputs of models")
    models = tuple(file.name.split(".")[0] for file in files)
    answers: dict[str, dict[int, str]] = {}
    for model, file in zip(models, files, strict=True):
        answers[model] = dict(
            read_jsonl(file, lambda fields: (int(fields.number("question_id")), fields.text("text", empty=True)))
        )

    def query(fields: Fields) -> Routed | None:
        number, reference = int(fields.number("idx")), fields.text("answer", empty=True)
        if not any(number in found for found in answers.values()):
            return None
        skills, domains = fields.texts("skill"), [name for name in fields.texts("domain") if name != "-1"]
        tags = [*skills, *domains]
        if difficulties and fields.names() and (level := _level(fields)):
            tags.append(level)
        texts = [answers[model].get(number) for model in models]
        rewards = tuple(None if text is None or score is None else float(score(reference, text)) for text in texts)
        return Routed(f"flask-{number}", fields.text("instruction"), models, rewards, tuple(tags), {"subsets": domains})

    found = read_jsonl(_file(directory, "flask_evaluation.jsonl"), query)
    return [one for one in found if one is not None]


def read_routellm(
    directory: pathlib.Path | str,
    mmlu: pathlib.Path | str,
    *,
    sets: Sequence[Literal["mmlu", "gsm8k"]] = ("mmlu", "gsm8k"),
) -> list[Routed]:
    """RouteLLM's records of GPT-4 and Mixtral on MMLU and GSM8K: a reward is whether the answer was right.

    A question's tags are its benchmark and, in MMLU, its subject, which is also its subset; that of GSM8K is "gsm8k".

    Args:
      directory: with ``mmlu_responses.jsonl`` and ``gsm8k_responses.csv``, plain or ``.gz``.
      mmlu: MMLU's directory, with ``test.jsonl``: the questions that the records number within each subject.
      sets: which of both.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Ong et al. 2024, https://arxiv.org/abs/2406.18665
    """
    directory, found = pathlib.Path(directory), []
    if "mmlu" in sets:
        questions: dict[str, list[str]] = {}

        def question(fields: Fields) -> None:
            choices = "\n".join(
                f"{letter}. {text}" for letter, text in zip("ABCD", fields.texts("choices"), strict=True)
            )
            questions.setdefault(fields.text("subject"), []).append(f"{fields.text('question')}\n{choices}")

        def response(fields: Fields) -> Routed:
            subject, index = fields.text("subject"), int(fields.number("index"))
            if index >= len(questions.get(subject, ())):
                raise fields.error("index", f"{subject} has {len(questions.get(subject, ()))} questions, got {index}")
            rewards = tuple(_right(fields.text(model), fields.where, model) for model in _ROUTELLM)
            prompt = questions[subject][index]
            return Routed(f"{subject}-{index}", prompt, _ROUTELLM, rewards, ("mmlu", subject), {"subsets": [subject]})

        read_jsonl(_file(pathlib.Path(mmlu), "test.jsonl"), question)
        found += read_jsonl(_file(directory, "mmlu_responses.jsonl"), response, key=lambda record: record.id)
    if "gsm8k" in sets:
        for where, row in _table(_file(directory, "gsm8k_responses.csv"), ("prompt", *_ROUTELLM)):
            rewards = tuple(_right(row[model], where, model) for model in _ROUTELLM)
            id = f"gsm8k-{where.rsplit(':', 1)[1]}"
            found.append(Routed(id, row["prompt"], _ROUTELLM, rewards, ("gsm8k",), {"subsets": ["gsm8k"]}))
    return found


def _file(directory: pathlib.Path, name: str) -> pathlib.Path:
    """The file or its compressed form."""
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{directory / name}: no such file, nor {name}.gz")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _level(fields: Fields) -> str | None:
    try:
        return fields.text("difficulty")
    except RecordError:
        if fields.number("difficulty") == -1:  # stands for none
            return None
        raise


def _right(text: str, where: str, field: str) -> float:
    if text not in ("True", "False"):
        raise RecordError(where, field, f"True or False is wanted, got {text!r}")
    return float(text == "True")


def _table(path: pathlib.Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """``file:line`` of each row's end, and its fields."""
    opened: Any = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115
    with opened as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise RecordError(
                    f"{path}:1", missing[0], f"missing; the columns are {', '.join(reader.fieldnames or ())}"
                )
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise RecordError(where, "", f"{len(reader.fieldnames or ())} fields are wanted")
                yield where, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise RecordError(f"{path}:{reader.line_num}", "", str(error)) from error
