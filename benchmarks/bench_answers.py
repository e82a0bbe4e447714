r"""Do the graders agree with the labels of public data, and how many answers a second do they judge?

    python -m benchmarks.bench_answers --data shared/data
    python -m benchmarks.bench_answers --data shared/data --sets birm gsm8k --write disagreements.jsonl

Each set's solutions or answers are compared with its known answers, twice: by `jaxrefine.judging.answers` (its keys,
then its pool) and by math-verify alone, as its own page tells to use it. A line of the table says how often each agrees
with the label: undecided agrees with none, and no answer is not right. Every disagreement of ours can be written out
with the two canonical keys, so that one sees which of the two, label or grader, is mistaken.

Rates: answers brought to their keys in one process and in several, nothing cached; and pairs compared by the pool.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import gzip
import json
import multiprocessing
import os
import pathlib
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import math_verify
import tyro

from jaxrefine.judging import answer_keys, answers
from jaxrefine.judging.answer_extraction import boxed, by_style
from jaxrefine.judging.answer_keys import canonical
from jaxrefine.judging.grading_pool import GradingPool, PoolConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A stated answer whose rightness is known."""

    name: str
    """Which record."""
    known: str
    """The known answer."""
    text: str
    """A solution, or a bare answer where there is no style."""
    right: bool
    """The label."""
    style: str | None = None
    """Where the solution states its answer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    data: pathlib.Path | None = None
    """The directory with the public data sets; without it only rates are measured, on made-up answers."""
    sets: tuple[str, ...] = ()
    """Which sets; by default all that are there."""
    write: pathlib.Path | None = None
    """Where to write the disagreements, one JSON line each."""
    baseline: bool = True
    """Also math-verify alone."""
    limit: int | None = None
    """At most so many cases a set."""
    processes: int = 2
    """For the rates, and workers of the pool."""
    answers: int = 4_000
    """Answers brought to their keys in one timing."""
    pairs: int = 200
    """Pairs compared by the pool in one timing."""
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses sets that are not known."""
        for name in self.sets:
            if name not in SETS:
                raise ValueError(f"sets: {name!r} is not one of {', '.join(SETS)}")


def _read(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _math_equivalence(data: pathlib.Path) -> Iterator[Case]:
    for record in _read(data / "math_equivalence/cases.jsonl"):
        yield Case(name=record["name"], known=record["test_out"], text=record["test_in"], right=record["expected"])


def _gsm8k(data: pathlib.Path) -> Iterator[Case]:
    for number, record in enumerate(_read(data / "gsm8k/example_model_solutions.jsonl.gz")):
        known = by_style("phrase")(record["ground_truth"]) or ""
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            solution = record[model]
            text, right = solution["solution"], solution["is_correct"]
            yield Case(name=f"{number}/{model}", known=known, text=text, right=right, style="phrase")


def _tora(data: pathlib.Path) -> Iterator[Case]:
    """The label is the equality of ToRA's own extracted prediction and the known answer, as plain numbers."""
    for path in sorted((data / "tora").glob("*.jsonl.gz")):
        for record in _read(path):
            right = _plain_number(record["pred"][0]) == _plain_number(record["gt"])
            name = f"{path.name.split('__')[0]}/{record['idx']}"
            yield Case(name=name, known=record["gt"], text=record["code"][0], right=right, style="auto")


def _plain_number(text: str) -> float | str:
    try:
        return round(float(text.replace(",", "")), 6)
    except ValueError:
        return text


def _prmbench(data: pathlib.Path) -> Iterator[Case]:
    """Solutions that are right by construction, on MATH problems whose answer is known."""
    known: dict[str, str] = {}
    for split in ("train", "test"):
        for record in _read(data / f"math/{split}.jsonl.gz"):
            known.setdefault(_squeezed(record["problem"]), boxed(record["solution"]) or "")
    seen: set[str] = set()
    for record in _read(data / "prmbench/prmtest_classified.jsonl.gz"):
        kinds = ["original_process"] + ["modified_process"] * (record["classification"] == "multi_solutions")
        answer = known.get(_squeezed(record["question"]))
        for kind in kinds:
            text = re.sub(r"\\n(?![a-z])|(?<=Answer)\\n", "\n", "\n".join(record[kind]))
            if answer and text not in seen:
                seen.add(text)
                yield Case(name=f"{record['idx']}/{kind}", known=answer, text=text, right=True, style="conclusion")


def _squeezed(problem: str) -> str:
    return re.sub(r"\s+", "", problem)


def _qwen25_math_rm(data: pathlib.Path) -> Iterator[Case]:
    for record in _read(data / "qwen25_math_rm/math_cot_100.jsonl.gz"):
        for number, (text, right) in enumerate(zip(record["code"], record["score"], strict=True)):
            yield Case(
                name=f"{record['idx']}/{number}", known=record["gt"], text=text, right=bool(right), style="boxed"
            )


def _birm(data: pathlib.Path) -> Iterator[Case]:
    for path in sorted((data / "birm").glob("*.jsonl.gz")):
        for record in _read(path):
            for number, output in enumerate(record["outputs"]):
                if isinstance(output["label"], bool):
                    name = f"{path.name.split('_n15_')[1].split('_math')[0]}/{record['idx']}/{number}"
                    text = output["response"].replace("ки", "\n")
                    yield Case(
                        name=name, known=record["ground_truth"], text=text, right=output["label"], style="phrase"
                    )


def _math_itself(data: pathlib.Path) -> Iterator[Case]:
    for number, record in enumerate(_read(data / "math/train_final_answers.jsonl.gz")):
        if record["final_answer"].strip():
            yield Case(name=str(number), known=record["final_answer"], text=record["final_answer"], right=True)


def _math_respelled(data: pathlib.Path) -> Iterator[Case]:
    for case in _math_itself(data):
        yield dataclasses.replace(case, text=respelled(case.known))


def respelled(answer: str) -> str:
    r"""The same answer as another hand would set it.

    >>> respelled(r"\frac{1}{2}")
    '$\\displaystyle \\boxed{\\dfrac{1}{2}}.$'
    """
    spelled = answer.replace("\\frac", "\\dfrac").replace("\\left", "").replace("\\right", "").replace(" + ", "+")
    return f"$\\displaystyle \\boxed{{{spelled}}}.$"


SETS: dict[str, Callable[[pathlib.Path], Iterator[Case]]] = {
    "math_equivalence": _math_equivalence,
    "gsm8k": _gsm8k,
    "tora": _tora,
    "prmbench": _prmbench,
    "qwen25_math_rm": _qwen25_math_rm,
    "birm": _birm,
    "math_itself": _math_itself,
    "math_respelled": _math_respelled,
}
"""Data sets, by name. The last two compare every known answer of MATH with itself and with another spelling of it."""


def judged(case: Case, pool: GradingPool | None) -> answers.Equivalence:
    """Our outcome."""
    stated = case.text if case.style is None else by_style(case.style)(case.text)
    return answers.equivalent(case.known, stated, grader=pool)


def judged_alone(case: Case) -> answers.Equivalence:
    """math-verify's, called as its documentation does."""
    known = math_verify.parse(f"${case.known}$", parsing_timeout=5)
    text = case.text if case.style else f"${case.text}$"
    given = math_verify.parse(text, parsing_timeout=5)
    if not given or not known:
        return "no answer"
    return "equal" if math_verify.verify(known, given, timeout_seconds=5) else "different"


def agrees(outcome: str, right: bool) -> bool:
    """Whether an outcome is what the label says: no answer is not right."""
    return outcome == "equal" if right else outcome in ("different", "no answer")


def agreement(name: str, cases: Iterable[Case], options: Options, pool: GradingPool | None) -> dict[str, Any]:
    """One set's record, with its disagreements."""
    ours: collections.Counter[str] = collections.Counter()
    alone: collections.Counter[str] = collections.Counter()
    agreed, disagreements = collections.Counter[str](), []
    reasons: collections.Counter[str] = collections.Counter()
    count = 0
    for case in cases:
        count += 1
        outcome = judged(case, pool)
        ours[outcome] += 1
        agreed["ours"] += agrees(outcome, case.right)
        other = judged_alone(case) if options.baseline else None
        if other is not None:
            alone[other] += 1
            agreed["math_verify"] += agrees(other, case.right)
        if not agrees(outcome, case.right):
            why = reason(case, outcome)
            reasons[why] += 1
            disagreements.append({"set": name, **explained(case), "ours": outcome, "math_verify": other, "why": why})
    record: dict[str, Any] = {"benchmark": "answers", "set": name, "cases": count, "ours": dict(ours)}
    record["agreement"] = agreed["ours"] / count if count else None
    if options.baseline:
        record["math_verify"] = dict(alone)
        record["math_verify_agreement"] = agreed["math_verify"] / count if count else None
    return {**record, "reasons": dict(reasons), "disagreements": disagreements}


def reason(case: Case, outcome: str) -> str:
    """Who is probably mistaken where outcome and label disagree, by what can be seen without a judge.

    >>> reason(Case(name="1", known="12", text="so 12 or 13", right=True), "different")
    'another value was read; the known one stands near the end'
    >>> reason(Case(name="1", known="10000", text="10{,}000", right=False), "equal")
    'one key, labelled wrong: the label holds a spelling for another answer'
    """
    if outcome == "equal":
        return "one key, labelled wrong: the label holds a spelling for another answer"
    if outcome == "undecided":
        return "neither the keys nor the pool could tell"
    near = _squeezed(case.known).casefold() in _squeezed(case.text[-160:]).casefold()
    read = "no answer was read" if outcome == "no answer" else "another value was read"
    if near:
        return f"{read}; the known one stands near the end"
    return f"{read}; the known one does not stand near the end: another spelling, or a doubtful label"


def explained(case: Case) -> dict[str, Any]:
    """What was read on both sides, and as what."""
    stated = case.text if case.style is None else by_style(case.style)(case.text)
    known, given = canonical(case.known), canonical(stated)
    return {
        "name": case.name,
        "label": "right" if case.right else "wrong",
        "known": case.known,
        "stated": stated,
        "known_key": known and known.key[:120],
        "stated_key": given and given.key[:120],
        "end_of_text": None if stated is not None and case.style is None else case.text[-160:],
    }


def made_up(count: int, seed: int) -> list[str]:
    """Answers of the common kinds, for rates where no data are at hand."""
    draw = random.Random(seed)
    forms = (
        "{a}", "{a}.{b}", "-{a}", r"\frac{{{a}}}{{{b}}}", r"{a}\sqrt{{{b}}}", "({a}, {b})", r"[{a}, \infty)", "x = {a}",
        r"{a}\%", r"\${a}.{b}", "{a} cm", "x^2 + {a}x - {b}", r"\text{{({c})}}", "{a}, {b}", r"{a}\frac{{1}}{{{b}}}",
    )  # fmt: skip
    return [
        draw.choice(forms).format(a=draw.randint(1, 999), b=draw.randint(2, 99), c=draw.choice("ABCDE"))
        for _ in range(count)
    ]


def bring_to_keys(texts: list[str]) -> int:
    """How many of these have a key, nothing cached."""
    answer_keys.forget()
    return sum(canonical(text) is not None for text in texts)


def rates(options: Options) -> dict[str, Any]:
    """Answers a second by keys, in one process and in several, and pairs a second by the pool."""
    texts = made_up(options.answers, options.seed)
    if options.data is not None:
        known = [case.known for case in _math_itself(options.data)]
        texts = random.Random(options.seed).choices(known, k=options.answers)
    texts = list(dict.fromkeys(texts))
    share = [texts[part :: options.processes] for part in range(options.processes)]
    record: dict[str, Any] = {
        "benchmark": "answers",
        "rates": {},
        "distinct": len(texts),
        "processes": options.processes,
    }

    def timed(call: Callable[[], Any], count: int) -> dict[str, float]:
        seconds = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return _rates(count, seconds)

    record["rates"]["keys_one_process"] = timed(functools.partial(bring_to_keys, texts), len(texts))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.processes, mp_context=context) as processes:
        list(processes.map(bring_to_keys, share))  # starts them
        record["rates"]["keys"] = timed(lambda: list(processes.map(bring_to_keys, share)), len(texts))
    config = PoolConfig(workers=options.processes)
    pairs = [(text, respelled(text)[1:-1]) for text in texts[: options.pairs]]
    seconds = []
    for _ in range(options.repeats):
        with GradingPool(config) as pool:
            pool.start()
            start = time.perf_counter()
            pool.compare_all(pairs)
            seconds.append(time.perf_counter() - start)
    record["rates"]["pool"] = _rates(len(pairs), seconds)
    return record


def _rates(count: int, seconds: list[float]) -> dict[str, float]:
    """So many a second: the median, and the slowest and fastest of the repeats."""
    return {"median": count / statistics.median(seconds), "min": count / max(seconds), "max": count / min(seconds)}


def run(options: Options) -> Iterator[dict[str, Any]]:
    """One record a set, then one of rates."""
    if options.data is not None:
        with GradingPool(PoolConfig(workers=options.processes)) as pool:
            for name in options.sets or SETS:
                cases = list(SETS[name](options.data))[: options.limit]
                yield agreement(name, cases, options, pool)
    yield rates(options)


def main(options: Options) -> None:
    """Prints the table, and writes the disagreements."""
    print("| set | cases | agreement | math-verify alone | equal | different | undecided | no answer |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    load = os.getloadavg()[0]  # the grading workers need Unix anyway
    listed: list[dict[str, Any]] = []
    reasons: list[tuple[str, int, str]] = []
    for record in run(options):
        if "rates" in record:
            print()
            for what, rate in record["rates"].items():
                print(f"{what}: {rate['median']:,.0f} a second ({rate['min']:,.0f} to {rate['max']:,.0f})")
            print(
                f"{record['distinct']} distinct answers, {options.repeats} repeats, seed {options.seed}; "
                f"{os.cpu_count()} cores ({platform.machine()}), load {load:.1f} before"
            )
            continue
        listed += record["disagreements"]
        reasons += [(record["set"], count, why) for why, count in record["reasons"].items()]
        shares = [record["agreement"], record.get("math_verify_agreement")]
        cells = ["–" if share is None else f"{100 * share:.2f} %" for share in shares]
        counts = [str(record["ours"].get(outcome, 0)) for outcome in ("equal", "different", "undecided", "no answer")]
        print("| " + " | ".join([record["set"], str(record["cases"]), *cells, *counts]) + " |", flush=True)
    if reasons:
        print("\ndisagreements:")
        for name, count, why in reasons:
            print(f"  {name}: {count} × {why}")
    if options.write is not None:
        options.write.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in listed))
        print(f"\n{len(listed)} disagreements are in {options.write}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
