"""The templates of the word problems, as one table: openings, steps in the middle, and endings.

A problem is an opening, any number of steps, and possibly an ending; it carries one running quantity ``x`` of a kind
("things", "dollars" or "effort"), and a template says which kind it takes and which it leaves.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

Kind = Literal["none", "things", "dollars", "effort", "end"]


@dataclasses.dataclass(frozen=True)
class Calculation:
    """One line of a solution: ``left operation right``; the operands are names of numbers.

    ``x`` is the running quantity before the template, ``r`` the result of the calculation just before, anything else
    a number that the template draws.
    """

    left: str
    operation: str
    right: str
    line: str
    ask: str


@dataclasses.dataclass(frozen=True)
class Template:
    """A piece of a problem.

    ``draws`` names its numbers and their ranges: "start" (a first quantity), "more" (an addend), "part" (less than
    x), "beyond" (more than x), "count" (a small number), "even", "divisor" (divides x evenly), or a number itself.
    An ending's last ``ask`` is the problem's question.
    """

    name: str
    takes: Kind
    gives: Kind
    text: str
    draws: tuple[tuple[str, str], ...]
    calculations: tuple[Calculation, ...] = ()


def _row(name: str, takes: Kind, gives: Kind, text: str, draws: str, *calculations: tuple[str, str, str]) -> Template:
    pairs = tuple((item.split(":")[0], item.split(":")[1]) for item in draws.split())
    parsed = []
    for sum_, line, ask in calculations:
        left, operation, right = sum_.split()
        parsed.append(Calculation(left, operation, right, line, ask))
    return Template(name, takes, gives, text, pairs, tuple(parsed))


_HAVE = "How many {noun} does {name} have then?"
_MONEY = "How many dollars does {name} have then?"
_DONE = "How many {noun} does {name} {do} so far?"

OPENINGS: tuple[Template, ...] = (
    # things
    _row("has", "none", "things", "{Name} has {a} {noun}.", "a:start"),
    _row("takes", "none", "things", "{Name} takes {a} {noun} to the {place}.", "a:start"),
    _row("containers", "none", "things", "{Name} has {a} {boxes} with {b} {noun} in each.", "a:count b:count",
         ("a * b", "In the {boxes}", "How many {noun} are in the {boxes}?")),
    _row("sizes", "none", "things", "{Name} has {a} big {noun} and {b} small ones.", "a:start b:more",
         ("a + b", "Big and small", "How many {noun} does {name} have at first?")),
    _row("daily", "none", "things", "{Name} gets {a} {noun} a day for {b} days.", "a:count b:count",
         ("a * b", "In all the days", "How many {noun} does {name} get in these days?")),
    _row("places", "none", "things", "{Name} finds {a} {noun} at the {place} and {b} at home.", "a:start b:more",
         ("a + b", "Both places", "How many {noun} does {name} find?")),
    _row("gifts", "none", "things", "{a} friends each give {name} {b} {noun}.", "a:count b:count",
         ("a * b", "From the friends", "How many {noun} do the friends give?")),
    _row("rows", "none", "things", "{Name} lays out {a} rows of {b} {noun}.", "a:count b:count",
         ("a * b", "In the rows", "How many {noun} are in the rows?")),
    _row("times", "none", "things", "{Other} has {a} {noun} and {name} has {b} times as many.", "a:start b:count",
         ("b * a", "{Name} has", "How many {noun} does {name} have at first?")),
    _row("fewer", "none", "things", "{Other} has {a} {noun} and {name} has {b} fewer.", "a:start b:more",
         ("a - b", "{Name} has", "How many {noun} does {name} have at first?")),
    _row("above", "none", "things", "{Other} has {a} {noun} and {name} has {b} more than that.", "a:start b:more",
         ("a + b", "{Name} has", "How many {noun} does {name} have at first?")),
    _row("half", "none", "things", "{Other} has {a} {noun} and {name} has half as many.", "a:even h:2",
         ("a / h", "{Name} has half", "How many {noun} does {name} have at first?")),
    _row("times_of_day", "none", "things",
         "{Name} picks up {a} {noun} in the morning and {b} at night.", "a:start b:more",
         ("a + b", "Morning and night", "How many {noun} does {name} pick up?")),
    # dollars
    _row("jar", "none", "dollars", "{Name} has ${a} in a jar.", "a:start"),
    _row("wage", "none", "dollars", "{Name} works {a} hours for ${b} an hour.", "a:count b:count",
         ("a * b", "{Name} earns", "How many dollars does {name} earn?")),
    _row("saves", "none", "dollars", "{Name} saves ${a} a week for {b} weeks.", "a:count b:count",
         ("a * b", "{Name} saves", "How many dollars does {name} save?")),
    _row("two_gifts", "none", "dollars", "{Name} gets ${a} from {other} and ${b} from a friend.", "a:start b:more",
         ("a + b", "Both gifts", "How many dollars does {name} get?")),
    _row("sale", "none", "dollars", "{Name} sells {a} {noun} for ${b} each.", "a:count b:count",
         ("a * b", "{Name} sells", "How many dollars does {name} get for the {noun}?")),
    # effort
    _row("one_day", "none", "effort", "{Name} {does} {a} {noun} on {day}.", "a:start"),
    _row("each_day", "none", "effort", "{Name} {does} {a} {noun} a day for {b} days.", "a:count b:count",
         ("a * b", "In these days", "How many {noun} does {name} {do} in these days?")),
    _row("two_days", "none", "effort", "{Name} {does} {a} {noun} on {day} and {b} the next day.", "a:start b:more",
         ("a + b", "Both days", "How many {noun} does {name} {do} on both days?")),
    _row("ahead", "none", "effort", "{Other} {does} {a} {noun} and {name} {does} {b} more than that.", "a:start b:more",
         ("a + b", "{Name} {does}", "How many {noun} does {name} {do} at first?")),
)  # fmt: skip

STEPS: tuple[Template, ...] = (
    # things
    _row("finds", "things", "things", "Then {he} finds {a} more.", "a:more", ("x + a", "With the new", _HAVE)),
    _row("brings", "things", "things", "{Other} brings {a} more {noun}.", "a:more", ("x + a", "{Other} brings", _HAVE)),
    _row("gives", "things", "things", "{He} gives {a} to {other}.", "a:part", ("x - a", "After giving", _HAVE)),
    _row("loses", "things", "things", "{He} loses {a} of them.", "a:part", ("x - a", "After losing", _HAVE)),
    _row("throws", "things", "things", "{a} of the {noun} are bad, so {he} throws them out.", "a:part",
         ("x - a", "Without the bad", _HAVE)),
    _row("gives_half", "things", "things", "{He} gives half of them to {other}.", "h:2",
         ("x / h", "Half is left", _HAVE)),
    _row("grows", "things", "things", "A week later {he} has {a} times as many.", "a:count",
         ("x * a", "A week later", _HAVE)),
    _row("keeps_one", "things", "things", "{He} puts them equally into {a} {boxes} and keeps one {box}.", "a:divisor",
         ("x / a", "In one {box}", "How many {noun} are in the {box} that {name} keeps?")),
    _row("buys_packs", "things", "things", "{He} buys {a} {boxes} of {b} more.", "a:count b:count",
         ("a * b", "In the new {boxes}", "How many {noun} are in the new {boxes}?"), ("x + r", "With the new", _HAVE)),
    _row("uses_daily", "things", "things", "{He} uses {a} a day for {b} days.", "a:count b:count",
         ("a * b", "Used", "How many {noun} does {name} use?"), ("x - r", "After that", _HAVE)),
    _row("to_friends", "things", "things", "{He} gives {a} {noun} to each of {b} friends.", "a:count b:count",
         ("a * b", "Given", "How many {noun} does {name} give to the friends?"), ("x - r", "After giving", _HAVE)),
    _row("swaps", "things", "things", "{He} swaps {a} of them for {b} others.", "a:part b:more",
         ("x - a", "After giving", "How many {noun} are left when {name} gives {a}?"),
         ("r + b", "With the others", _HAVE)),
    # things to dollars
    _row("sells_all", "things", "dollars", "{He} sells them all for ${a} each.", "a:count",
         ("x * a", "{He} gets", "How many dollars does {name} get?")),
    _row("sells_packs", "things", "dollars", "{He} sells them in {boxes} of {a}, each {box} for ${b}.",
         "a:divisor b:count",
         ("x / a", "Number of {boxes}", "How many {boxes} does {name} sell?"),
         ("r * b", "{He} gets", "How many dollars does {name} get?")),
    # dollars
    _row("spends", "dollars", "dollars", "{He} spends ${a} on a {good}.", "a:part", ("x - a", "After paying", _MONEY)),
    _row("earns", "dollars", "dollars", "Then {he} earns ${a} more.", "a:more", ("x + a", "With the new", _MONEY)),
    _row("paid_back", "dollars", "dollars", "{Other} gives {him} another ${a}.", "a:more",
         ("x + a", "{Other} gives", _MONEY)),
    _row("buys_goods", "dollars", "dollars", "{He} buys {a} {good}s for ${b} each.", "a:count b:count",
         ("a * b", "The {good}s cost", "How many dollars do the {good}s cost?"), ("x - r", "After paying", _MONEY)),
    _row("spends_half", "dollars", "dollars", "{He} spends half of the money.", "h:2",
         ("x / h", "Half is left", _MONEY)),
    _row("splits", "dollars", "dollars", "The money is split among {a} people and {name} is one of them.", "a:divisor",
         ("x / a", "One part", _MONEY)),
    _row("overtime", "dollars", "dollars", "{He} works {a} hours more for ${b} an hour.", "a:count b:count",
         ("a * b", "More pay", "How many dollars is the new pay?"), ("x + r", "With the new", _MONEY)),
    # effort
    _row("more_on_day", "effort", "effort", "On {day2} {he} {does} {a} more.", "a:more",
         ("x + a", "With {day2}", _DONE)),
    _row("more_daily", "effort", "effort", "Then {he} {does} {a} {noun} a day for {b} days.", "a:count b:count",
         ("a * b", "New {noun}", "How many {noun} does {name} {do} in the new days?"),
         ("x + r", "With the new", _DONE)),
    _row("prize", "effort", "dollars", "{He} gets ${a} for each of the {noun}.", "a:count",
         ("x * a", "{He} gets", "How many dollars does {name} get?")),
)  # fmt: skip

ENDINGS: tuple[Template, ...] = (
    _row("together", "things", "end", "{Other} has {a} {noun}.", "a:more",
         ("x + a", "Together", "How many {noun} do {name} and {other} have together?")),
    _row("together_more", "things", "end", "{Other} has {a} more than {name}.", "a:more",
         ("x + a", "{Other} has", "How many {noun} does {other} have?"),
         ("x + r", "Together", "How many {noun} do {name} and {other} have together?")),
    _row("together_times", "things", "end", "{Other} has {a} times as many as {name}.", "a:count",
         ("x * a", "{Other} has", "How many {noun} does {other} have?"),
         ("x + r", "Together", "How many {noun} do {name} and {other} have together?")),
    _row("other_times", "things", "end", "{Other} has {a} times as many as {name}.", "a:count",
         ("x * a", "{Other} has", "How many {noun} does {other} have?")),
    _row("packs", "things", "end", "{He} puts {a} of them into each of the {boxes}.", "a:divisor",
         ("x / a", "Number of {boxes}", "How many {boxes} does {name} fill?")),
    _row("difference", "things", "end", "{Other} has {a} {noun}.", "a:part",
         ("x - a", "The difference", "How many more {noun} does {name} have than {other}?")),
    _row("goal", "things", "end", "{He} wants {a} {noun} in all.", "a:beyond",
         ("a - x", "Still missing", "How many more {noun} does {name} need?")),
    _row("shares", "things", "end", "{He} shares them equally among {a} friends.", "a:divisor",
         ("x / a", "Each friend gets", "How many {noun} does each friend get?")),
    _row("tickets", "dollars", "end", "Tickets for the fair cost ${a} each.", "a:divisor",
         ("x / a", "Number of tickets", "How many tickets can {name} buy?")),
    _row("price", "dollars", "end", "A bike costs ${a}.", "a:beyond",
         ("a - x", "Still missing", "How many more dollars does {name} need for the bike?")),
    _row("both_money", "dollars", "end", "{Other} has ${a}.", "a:more",
         ("x + a", "Together", "How many dollars do {name} and {other} have together?")),
    _row("weeks", "dollars", "end", "{He} spends ${a} each week.", "a:divisor",
         ("x / a", "Number of weeks", "For how many weeks does the money last?")),
    _row("left", "effort", "end", "{He} wants to {do} {a} {noun} in all.", "a:beyond",
         ("a - x", "Still to go", "How many {noun} are left for {name}?")),
    _row("rival", "effort", "end", "{Other} {does} {a} times as many {noun}.", "a:count",
         ("x * a", "{Other} {does}", "How many {noun} does {other} {do}?")),
    _row("behind", "effort", "end", "{Other} {does} {a} {noun} fewer.", "a:part",
         ("x - a", "{Other} {does}", "How many {noun} does {other} {do}?")),
    _row("pace", "effort", "end", "{He} {does} {a} {noun} an hour.", "a:divisor",
         ("x / a", "Number of hours", "How many hours does {name} need for all of the {noun}?")),
)  # fmt: skip

FINAL_QUESTIONS: dict[str, str] = {
    "things": "How many {noun} does {name} have now?",
    "dollars": "How many dollars does {name} have now?",
    "effort": "How many {noun} does {name} {do} in all?",
}
"""What is asked of a problem without an ending, by the kind of its last quantity."""

OPERATIONS: dict[str, str] = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division"}
