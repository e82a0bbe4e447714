"""Judges against people: a table with published rows beside it, who beats whom by each, the words of their reasons."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.data.readers_pandalm import Annotated, Said
from jaxrefine.evaluation.agreement import Agreement, Standings, agreement, kappa, majority, standings
from jaxrefine.evaluation.standings_plot import ranked, standings_graph

PEOPLE = "people"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of a paper's table: accuracy, macro precision, recall and F1 on another or a larger set."""

    name: str
    accuracy: float
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "PandaLM's test set, 999 pairs (the paper's table)": (
        Published("PandaLM-7B", 0.5926, 0.5728, 0.5923, 0.5456),
        Published("PandaLM-70B", 0.6687, 0.7402, 0.6687, 0.6923),
        Published("GPT-3.5", 0.6296, 0.6195, 0.6359, 0.5820),
        Published("GPT-4", 0.6647, 0.6620, 0.6815, 0.6180),
        Published("trained on verdicts alone", 0.4725),
        Published("PandaLM-7B by likelihood", 0.5926, f1=0.5578),
        Published("LLaMA-7B by likelihood, 0-shot", 0.1211, f1=0.0877),
        Published("LLaMA-7B by likelihood, 5-shot", 0.2482, f1=0.2543),
    ),
    "its 999 released verdicts, counted again": (
        Published("PandaLM-7B", 0.6677, f1=0.5743),
        Published("GPT-3.5, unreadable as ties", 0.7107, f1=0.5755),
    ),
}
"""What others reported; only to be read beside rows that were measured on the same pairs.

Source: PandaLM, arXiv:2306.05087; the second part from the files of its repository.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasonWords:
    """The words of a judge's reasons."""

    mean_words: float
    most: tuple[tuple[str, int], ...]
    """Words that are no function words, with the number of reasons that have them, the most frequent first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeReport:
    """What is known of several judges on one set of pairs."""

    truth: str
    """Whose verdicts are the true ones."""
    num: int
    """Pairs with a majority among them."""
    without_majority: int
    people: tuple[float | None, ...]
    """κ between each two annotators, in the order (1, 2), (1, 3), (2, 3) …"""
    judges: Mapping[str, Agreement]
    """Unreadable verdicts are wrong."""
    lenient: Mapping[str, Agreement]
    """Unreadable verdicts are ties; only judges that have any."""
    standings: Mapping[str, Standings]
    """By the true verdicts and by each judge; empty where the data does not name its models."""
    reasons: Mapping[str, ReasonWords]


def reason_words(reasons: Iterable[str], *, most: int = 20) -> ReasonWords:
    """Counts the reasons in which each word occurs.

    Args:
        reasons: blank ones count for nothing.
        most: words to name.

    >>> reason_words(["Response 1 is clear.", "It is clear and concise."], most=2).most
    (('clear', 2), ('concise', 1))
    """
    texts = [_WORD.findall(reason.lower()) for reason in reasons if reason.strip()]
    counts = Counter(word for words in texts for word in dict.fromkeys(words) if word not in _FUNCTION_WORDS)
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return ReasonWords(mean_words=sum(map(len, texts)) / len(texts) if texts else 0.0, most=tuple(found))


_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_FUNCTION_WORDS = frozenset(
    """
    a about all also although an and any are as at be because been better both but by can could does each for from had
    has have he her his i if in into is it its itself less like more most much no nor not of on one only or other our
    out response responses she should so some such than that the their them then there these they this those though to
    too two up very was we were what when where which while who whose will with would you your
    """.split()  # noqa: SIM905
)


def measure_judges(
    pairs: Sequence[Annotated], said: Mapping[str, Mapping[str, Said]], *, truth: str = PEOPLE, seed: int = 0
) -> JudgeReport:
    """Compares judges with people, or with a teacher: with the majority where there are several verdicts.

    Args:
        pairs: with their true verdicts.
        said: by judge and by the pair's id; a pair that a judge did not answer counts as unreadable.
        truth: whose verdicts the pairs have.
        seed: of the bootstrap.

    Raises:
        ValueError: a verdict on a pair that is not there, no pair with a majority.
    """
    ids = {pair.id for pair in pairs}
    for judge, verdicts in said.items():
        if strange := sorted(set(verdicts) - ids):
            raise ValueError(f"{judge} judged pair {strange[0]!r}, which is not among the {len(ids)} pairs")
    verdicts_of = {pair.id: majority(pair.said) for pair in pairs}
    counted = [pair for pair in pairs if verdicts_of[pair.id] is not None]
    true = [str(verdicts_of[pair.id]) for pair in counted]
    nothing = Said(verdict="missing", reason="", reference="")
    predicted = {
        judge: [verdicts.get(pair.id, nothing).verdict for pair in counted] for judge, verdicts in said.items()
    }
    judges = {judge: agreement(true, verdicts, seed=seed) for judge, verdicts in predicted.items()}
    annotators = min(len(pair.said) for pair in pairs)
    by_annotator = [[pair.said[number] for pair in pairs] for number in range(annotators)]
    named = all(pair.models[0] and pair.models[1] and pair.models[0] != pair.models[1] for pair in counted)
    return JudgeReport(
        truth=truth,
        num=len(counted),
        without_majority=len(pairs) - len(counted),
        people=tuple(kappa(one, other) for one, other in itertools.combinations(by_annotator, 2)),
        judges=judges,
        lenient={
            judge: agreement(true, predicted[judge], unread="tie", seed=seed)
            for judge, found in judges.items()
            if found.unread
        },
        standings={
            name: standings((*pair.models, verdict) for pair, verdict in zip(counted, verdicts, strict=True))
            for name, verdicts in ({truth: true} | predicted if named else {}).items()
        },
        reasons={judge: reason_words(one.reason for one in verdicts.values()) for judge, verdicts in said.items()},
    )


_TITLES = ("accuracy", "95 % interval", "precision", "recall", "F1", "κ", "unreadable")
_LEFT_OUT, _WIDE = frozenset({"precision", "recall"}), 100
"""What a terminal of fewer columns than that leaves to the report, so that nothing of the rest is cut."""


def _rows(report: JudgeReport) -> list[tuple[str, ...]]:
    lenient = {f"{judge}, unreadable as ties": found for judge, found in report.lenient.items()}
    return [
        (
            name, f"{found.accuracy:.4f}", f"{found.interval.low:.3f} – {found.interval.high:.3f}",
            f"{found.macro.precision:.4f}", f"{found.macro.recall:.4f}", f"{found.macro.f1:.4f}",
            "–" if found.kappa is None else f"{found.kappa:.3f}", str(found.unread),
        )
        for name, found in (dict(report.judges) | lenient).items()
    ]  # fmt: skip


def _published(rows: Sequence[Published]) -> list[tuple[str, ...]]:
    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    return [
        (f"{row.name} †", cell(row.accuracy), "–", cell(row.precision), cell(row.recall), cell(row.f1), "–", "–")
        for row in rows
    ]


def print_judges(
    report: JudgeReport,
    published: Mapping[str, Sequence[Published]],
    console: Console | None = None,
) -> None:
    """The table on the terminal; published rows bear a dagger."""
    console = console if console is not None else Console()
    title = f"against {report.truth} on {report.num} pairs" + ("; † published" if published else "")
    table = Table(title=title, title_justify="left")
    table.add_column("judge", overflow="fold")
    kept = [place for place, title in enumerate(_TITLES) if console.width >= _WIDE or title not in _LEFT_OUT]
    for place in kept:
        table.add_column(_TITLES[place], justify="right", no_wrap=True)
    for name, *cells in _rows(report):
        table.add_row(name, *(cells[place] for place in kept))
    for what, rows in published.items():
        table.add_section()
        table.add_row(what, style="dim")
        for name, *cells in _published(rows):
            table.add_row(name, *(cells[place] for place in kept), style="dim")
    console.print(table)


def matrix(found: Standings) -> str:
    """Wins/losses/ties of each model of a row against that of a column, as a Markdown table, best models first."""
    order = ranked(found)
    place = {model: i for i, model in enumerate(found.models)}

    def cell(one: str, other: str) -> str:
        i, j = place[one], place[other]
        return "" if i == j else f"{found.wins[i, j]}/{found.wins[j, i]}/{found.ties[i, j]}"

    lines = [f"| | {' | '.join(order)} |", "|---" * (len(order) + 1) + "|"]
    return "\n".join([*lines, *(f"| {one} | {' | '.join(cell(one, other) for other in order)} |" for one in order)])


def write_judge_report(
    report: JudgeReport,
    directory: Path,
    *,
    published: Mapping[str, Sequence[Published]],
    title: str,
    least: int = 5,
    notes: Sequence[str] = (),
) -> Path:
    """Writes ``metrics.json``, ``report.md`` and the graphs of who beats whom.

    Args:
        report: of ``measure_judges``.
        directory: where to.
        published: rows to be shown beside, by what they were measured on.
        title: heading.
        least: a lead below this is none.
        notes: on the pairs, before the table.

    Returns:
        The path of ``report.md``.
    """
    write_json(directory / "metrics.json", as_json(report, least=least))
    head = ["| judge | " + " | ".join(_TITLES) + " |", "|---" * (len(_TITLES) + 1) + "|"]
    lines = [f"| {' | '.join(row)} |" for row in _rows(report)]
    for what, rows in published.items():
        lines += [f"| *{what}* |" + " |" * len(_TITLES), *(f"| {' | '.join(row)} |" for row in _published(rows))]
    agreed = ", ".join("–" if value is None else f"{value:.3f}" for value in report.people)
    without = f", {report.without_majority} more have no majority" if report.without_majority else ""
    parts = [
        f"# {title}",
        f"{report.num} pairs against {report.truth}{without}. "
        + (f"κ between each two annotators: {agreed}. " if report.people else "")
        + "Precision, recall and F1 are unweighted means over first, second and tie. What a judge said in a form that "
        "cannot be read is wrong, or, in a row that says so, a tie. Rows with † are published and were not measured "
        "here.",
        *notes,
        "\n".join([*head, *lines]),
    ]
    for name, found in report.standings.items():
        file = directory / "figures" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        standings_graph(found, least=least, title=name).savefig(file, dpi=160, metadata={"Software": None})
        circle = found.cycle(least=least)
        by = name if name.startswith("by ") else f"by {name}"  # a judge may be called by how it was asked
        parts += [
            f"## Who beats whom {by}",
            "Wins/losses/ties of the row's model against the column's.",
            matrix(found),
            f"![who beats whom {by}]({file.relative_to(directory).as_posix()})",
            f"In a circle: {' → '.join(circle)}." if circle else "There is no circle among them.",
        ]
    spoken = {judge: reasons for judge, reasons in report.reasons.items() if reasons.mean_words}
    if spoken:
        parts.append("## Words of the reasons")
    for judge, reasons in spoken.items():
        words = ", ".join(f"{word} {count}" for word, count in reasons.most)
        parts.append(f"{judge}: {reasons.mean_words:.1f} words on average; reasons with: {words}.")
    path = directory / "report.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def as_json(report: JudgeReport, *, least: int = 5) -> dict[str, Any]:
    """The figures as JSON holds them."""

    def of(found: Agreement) -> dict[str, Any]:
        record = dataclasses.asdict(found)
        return {**record, "confusion": found.confusion.tolist(), "unread": found.unread}

    return {
        "pairs": report.num,
        "without_majority": report.without_majority,
        "kappa_between_people": list(report.people),
        "judges": {name: of(found) for name, found in report.judges.items()},
        "unread_as_ties": {name: of(found) for name, found in report.lenient.items()},
        "standings": {
            name: {
                "models": list(found.models), "wins": found.wins.tolist(), "ties": found.ties.tolist(),
                "beats": found.edges(least=least)[0], "similar": found.edges(least=least)[1],
                "circle": found.cycle(least=least),
            }
            for name, found in report.standings.items()
        },
        "reasons": {name: dataclasses.asdict(found) for name, found in report.reasons.items()},
    }  # fmt: skip
