"""The arithmetic world: seeded multi-step grade-school word problems, composed from templates.

A problem is an opening, steps and possibly an ending (``templates.py``) about people, things and places
(``words.py``). It is a pure function of (config, seed, split, index), so any problem can be made at any time, in any
process. Which split a problem may appear in is decided by a hash of its skeleton (templates and numbers, names and
things apart), so the splits share no question, not even with other names. Within a split the same problem may be
drawn twice, as from any source.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from jaxrefine.config import unknown_name
from jaxrefine.data.arithmetic import words
from jaxrefine.data.arithmetic.templates import ENDINGS, FINAL_QUESTIONS, OPENINGS, OPERATIONS, STEPS, Template
from jaxrefine.data.examples import Instruction
from jaxrefine.data.templates import TEMPLATES

T = TypeVar("T")

SPLITS: dict[str, tuple[int, ...]] = {"train": (0, 1, 2, 3), "validation": (4, 5), "test": (6, 7)}
"""The buckets, of eight, of the skeleton hash that belong to each split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArithmeticConfig:
    """How hard the problems are: every number stays a whole number in 2..max_value."""

    min_steps: int = 2
    """Fewest calculations of a solution."""
    max_steps: int = 4
    """Most calculations of a solution."""
    max_start: int = 40
    """Largest first quantity that is simply given."""
    max_addend: int = 20
    """Largest number that is added or taken away."""
    max_factor: int = 6
    """Largest number that multiplies or divides."""
    max_value: int = 200
    """Largest result of any calculation."""
    ending_rate: float = 0.5
    """Share of problems that end with a question of their own rather than "how many now"."""
    idle_rate: float = 0.1
    """Share of problems with a sentence whose number does not matter."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_steps <= self.max_steps <= 8:
            raise ValueError(f"steps: 1 <= min_steps <= max_steps <= 8, got {self.min_steps} and {self.max_steps}")
        for name, least in (("max_start", 12), ("max_addend", 4), ("max_factor", 3), ("max_value", 24)):
            if not least <= getattr(self, name) <= 999:
                raise ValueError(f"{name} is {least}..999, got {getattr(self, name)}")
        for name in ("ending_rate", "idle_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share in 0..1, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Tags:
    """What a problem is made of: operation kinds in order, one a calculation; topic; templates in order."""

    operations: tuple[str, ...]
    num_steps: int
    topic: str
    templates: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A word problem with its solution; every calculation answers one sub-question, the last one the question."""

    id: str
    question: str
    answer: int
    solution: str
    """One line a calculation (``In the trays: 3*12=36.``), then ``#### 36``."""
    sub_questions: tuple[tuple[str, int], ...]
    facts: tuple[str, ...]
    """The sentences of the question that matter, in order."""
    tags: Tags

    def instruction(self) -> Instruction:
        """The problem as a prompt (the question and a line end) with its solution as the response."""
        prompt = TEMPLATES["question"].render(question=self.question)
        return Instruction(self.id, prompt, self.solution, str(self.answer))


class _Draws:
    """Uniform draws from PCG64's raw words: NumPy keeps that stream stable for ever, that of Generator it does not."""

    def __init__(self, *entropy: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))
        self._words: list[int] = []

    def below(self, num: int) -> int:
        if not self._words:
            self._words = self._bits.random_raw(48).tolist()
        return (self._words.pop() * num) >> 64

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def chance(self, rate: float) -> bool:
        return self.below(1 << 30) < rate * (1 << 30)


_Chain = list[tuple[Template, dict[str, int], list[int]]]
"""Templates with their numbers and the results of their calculations."""


def _number(spec: str, x: int, draws: _Draws, config: ArithmeticConfig) -> int | None:
    if spec == "start":
        return draws.between(5, config.max_start)
    if spec == "more":
        return draws.between(2, config.max_addend)
    if spec == "count":
        return draws.between(2, config.max_factor)
    if spec == "part":
        return draws.between(2, min(config.max_addend, x - 2)) if x >= 4 else None
    if spec == "beyond":
        return x + draws.between(2, config.max_addend)
    if spec == "even":
        return 2 * draws.between(2, config.max_start // 2)
    if spec == "divisor":
        divisors = [d for d in range(2, min(config.max_factor, x // 2) + 1) if x % d == 0]
        return divisors[draws.below(len(divisors))] if divisors else None
    return int(spec)


def _calculate(left: int, operation: str, right: int) -> int:
    """The result, or -1 for a division with remainder."""
    if operation == "+":
        return left + right
    if operation == "-":
        return left - right
    if operation == "*":
        return left * right
    return left // right if left % right == 0 else -1


def _apply(
    template: Template, x: int, draws: _Draws, config: ArithmeticConfig
) -> tuple[dict[str, int], list[int]] | None:
    """Numbers for a template that follows the quantity x, and its results; None where they do not work out."""
    numbers: dict[str, int] = {}
    for name, spec in template.draws:
        number = _number(spec, x, draws, config)
        if number is None or not 2 <= number <= config.max_value:
            return None
        numbers[name] = number
    values = {**numbers, "x": x}
    results: list[int] = []
    for calculation in template.calculations:
        result = _calculate(values[calculation.left], calculation.operation, values[calculation.right])
        if not 2 <= result <= config.max_value:
            return None
        values["r"] = result
        results.append(result)
    return numbers, results


_FOLLOWING: dict[tuple[str, str, int], list[Template]] = {
    (table, kind, room): [row for row in rows if row.takes == kind and len(row.calculations) <= room]
    for table, rows in (("opening", OPENINGS), ("step", STEPS), ("ending", ENDINGS))
    for kind in ("none", "things", "dollars", "effort")
    for room in range(9)
}


def _chain(draws: _Draws, config: ArithmeticConfig) -> _Chain | None:
    """Draws templates and numbers with the wanted number of calculations; None where a choice leads nowhere."""
    room = draws.between(config.min_steps, config.max_steps)
    choices = _FOLLOWING["opening", "none", room]
    chain: _Chain = []
    x, kind = 0, "none"
    wants_ending = draws.chance(config.ending_rate)
    while True:
        template = choices[draws.below(len(choices))]
        if any(template is used for used, _, _ in chain):
            return None
        applied = _apply(template, x, draws, config)
        if applied is None:
            return None
        numbers, results = applied
        chain.append((template, numbers, results))
        x = results[-1] if results else next(iter(numbers.values()))
        kind, room = template.gives, room - len(results)
        if room == 0:
            return chain
        choices = _FOLLOWING["step", kind, room]
        if wants_ending and room <= 2:
            endings = [row for row in _FOLLOWING["ending", kind, room] if len(row.calculations) == room]
            choices = endings if endings and (room == 1 or draws.below(2)) else choices
        if not choices:
            return None


def _skeleton(chain: _Chain) -> bytes:
    return ";".join(f"{row.name}:{','.join(map(str, numbers.values()))}" for row, numbers, _ in chain).encode()


def split_of(skeleton: bytes) -> str:
    """The split to which every problem of a skeleton (templates and numbers) belongs."""
    bucket = hashlib.blake2b(skeleton, digest_size=1).digest()[0] % 8
    return next(split for split, buckets in SPLITS.items() if bucket in buckets)


def _pick(values: Sequence[T], draws: _Draws) -> T:
    return values[draws.below(len(values))]


def _render(chain: _Chain, draws: _Draws, config: ArithmeticConfig, id: str) -> Problem:
    topic = _pick(tuple(words.TOPICS), draws)
    setting = words.TOPICS[topic]
    name, he = _pick(words.PEOPLE, draws)
    strangers = [other for other, pronoun in words.PEOPLE if pronoun != he]  # "she" must mean nobody else
    others = [strangers.pop(draws.below(len(strangers))) for _ in range(3)]
    does, do, effort = _pick(words.PASTIMES, draws)
    thing, boxes, place = _pick(setting.things, draws), _pick(setting.containers, draws), _pick(setting.places, draws)
    slots: dict[str, str | int] = {
        "name": name, "Name": name, "he": he, "He": he.capitalize(), "him": "him" if he == "he" else "her",
        "does": does, "do": do, "boxes": boxes, "box": boxes[:-1], "place": place, "good": _pick(words.GOODS, draws),
        "day": _pick(words.DAYS, draws), "day2": _pick(words.LATER_DAYS, draws),
    }  # fmt: skip
    sentences: list[str] = []
    lines: list[str] = []
    asks: list[tuple[str, int]] = []
    x = 0
    kind = "none"
    for position, (template, numbers, results) in enumerate(chain):
        # an opening, the steps and an ending each speak of somebody else, so that nobody has two amounts
        other = others[0 if position == 0 else 2 if template.gives == "end" else 1]
        slots |= {"other": other, "Other": other, **numbers}
        if template.gives != "end":
            kind = template.gives
        slots["noun"] = effort if kind == "effort" or template.takes == "effort" else thing
        sentences.append(template.text.format_map(slots))
        values = {**numbers, "x": x}
        for calculation, result in zip(template.calculations, results, strict=True):
            left, right = values[calculation.left], values[calculation.right]
            lines.append(f"{calculation.line.format_map(slots)}: {left}{calculation.operation}{right}={result}.")
            asks.append((calculation.ask.format_map(slots), result))
            values["r"] = result
        x = results[-1] if results else next(iter(numbers.values()))
    if chain[-1][0].gives == "end":
        question = asks[-1][0]
    else:
        question = FINAL_QUESTIONS[kind].format_map(slots)
        asks[-1] = (question, asks[-1][1])
    facts = tuple(sentences)
    if draws.chance(config.idle_rate):
        idle = _pick(words.IDLE, draws).format(n=draws.between(2, config.max_addend), place=place)
        sentences.insert(1 + draws.below(len(sentences)), idle)
    operations = tuple(OPERATIONS[row.operation] for template, _, _ in chain for row in template.calculations)
    return Problem(
        id=id,
        question=" ".join([*sentences, question]),
        answer=x,
        solution="\n".join([*lines, f"#### {x}"]),
        sub_questions=tuple(asks),
        facts=facts,
        tags=Tags(operations, len(operations), topic, tuple(template.name for template, _, _ in chain)),
    )


def problem(split: str, index: int, seed: int = 0, config: ArithmeticConfig | None = None) -> Problem:
    """Problem ``index`` of a split: always the same one, however many are drawn and wherever.

    Args:
      split: "train", "validation" or "test".
      index: any number from 0.
      seed: another seed, other problems; the splits stay disjoint across seeds.
      config: the difficulty.
    Raises:
      ValueError: an unknown split, a negative index or seed.

    >>> example = problem("train", 0)
    >>> example.solution.splitlines()[-1] == f"#### {example.answer}"
    True
    """
    config = config or ArithmeticConfig()
    if split not in SPLITS:
        raise ValueError(unknown_name(split, SPLITS, "split"))
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed start at 0, got index {index} and seed {seed}")
    draws = _Draws(seed, list(SPLITS).index(split), index)
    while True:
        chain = _chain(draws, config)
        if chain is not None and split_of(_skeleton(chain)) == split:
            return _render(chain, draws, config, f"arithmetic-{split}-{seed}-{index}")


def generate(
    split: str, num: int, seed: int = 0, config: ArithmeticConfig | None = None, *, start: int = 0
) -> list[Problem]:
    """Problems ``start .. start + num - 1`` of a split.

    >>> len(generate("test", 3))
    3
    """
    return [problem(split, index, seed, config) for index in range(start, start + num)]
