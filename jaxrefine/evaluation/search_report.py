"""A search over settings for people: every trial's strength, accuracy and perplexity, and what its judge cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.evaluation.harness import headline
from jaxrefine.evaluation.metrics import Interval, bootstrap, make_resamples, paired_difference
from jaxrefine.evaluation.plots import BLACK, BLUE, GREY, ORANGE, make_panels
from jaxrefine.evaluation.strengths import strengths_of
from jaxrefine.selection.tournament import Budget, Match, Outcome
from jaxrefine.training.grid import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT, UNTUNED = "default", "before tuning"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answered:
    """What is known of one trained model besides the judge's opinion."""

    right: tuple[float, ...] | None
    """Of each test task: 1 where its answer is the known one, else 0; None where answers are not known."""
    mean_characters: float
    """Of its answers to the test tasks, or the validation tasks where there are no others."""
    perplexity: float | None
    """Of the validation tasks' responses, a token; None where there are none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchResult:
    """One base model's search."""

    base: str
    trials: Mapping[str, Trial]
    """By name, without the default, without those that diverged."""
    diverged: tuple[str, ...]
    answered: Mapping[str, Answered]
    """By name, the default's among them."""
    budget: Budget
    outcome: Outcome
    tournament_questions: int
    """Of the tournament's matches; fewer than budgeted where two answers are one text."""
    final: Match
    """The champion against the default."""
    round_robin: tuple[Match, ...]
    """All against all, the default too; empty where it was not played."""
    questions: int
    """Different ones that the judge was asked in all: no two texts are compared twice."""
    harness: Mapping[str, Mapping[str, Mapping[str, float]]] = dataclasses.field(default_factory=dict)
    """What lm-eval measured, by model, task and metric; models are trials, the default and ``UNTUNED``."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that are compared, the default last."""
        return (*self.trials, DEFAULT)

    def accuracy(self, name: str) -> Interval | None:
        """On the test tasks."""
        right = self.answered[name].right
        return None if right is None else bootstrap(np.array([right]), make_resamples(1, len(right)))

    def gain(self) -> Interval | None:
        """The champion's accuracy less the default's, paired by task."""
        ours, theirs = self.answered[self.outcome.champion].right, self.answered[DEFAULT].right
        if ours is None or theirs is None:
            return None
        return paired_difference(np.array([ours]), np.array([theirs]), make_resamples(1, len(ours)))

    def shares(self) -> dict[str, float]:
        """Of each trial: prompts won and half of those tied, over all it met a verdict at; NaN where there are none."""
        points, met = dict.fromkeys(self.names, 0.0), dict.fromkeys(self.names, 0)
        for match in self.round_robin or (*self.outcome.matches, self.final):
            for name, won in ((match.one, match.wins), (match.other, match.losses)):
                points[name] += won + match.ties / 2
                met[name] += match.wins + match.losses + match.ties
        return {name: points[name] / met[name] if met[name] else math.nan for name in self.names}

    def strengths(self) -> Mapping[str, Interval]:
        """Of the round robin, the strongest first; empty without one."""
        return strengths_of(self.round_robin, self.names) if self.round_robin else {}

    def correlations(self) -> dict[str, float]:
        """Spearman's ρ over trials between the share of points and accuracy, and with perplexity."""
        shares = self.shares()
        columns = {
            "judged share and accuracy": [_mean(self.answered[name].right) for name in self.names],
            "judged share and perplexity": [_number(self.answered[name].perplexity) for name in self.names],
        }
        found = {}
        for title, column in columns.items():
            pairs = [(shares[name], value) for name, value in zip(self.names, column, strict=True)]
            kept = np.array([pair for pair in pairs if not any(math.isnan(value) for value in pair)])
            if len(kept) > 2 and all(len(set(values)) > 1 for values in kept.T.tolist()):
                found[title] = float(spearmanr(kept[:, 0], kept[:, 1]).statistic)
        return found


def _mean(values: Sequence[float] | None) -> float:
    return math.nan if not values else sum(values) / len(values)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def markdown(results: Sequence[SearchResult], *, title: str, figures: Mapping[str, str]) -> str:
    """The report.

    Args:
        results: one a base model.
        title: heading.
        figures: the path of each base model's figure from the report.
    """
    parts = [f"# {title}"]
    for found in results:
        parts += [f"## {found.base}", *_facts(found), _table(found)]
        if found.harness:
            parts += ["What lm-eval measures (± standard error), beside the judge's opinion:", _harness_table(found)]
        if found.base in figures:
            parts.append(f"![wins by setting, perplexity beside wins]({figures[found.base]})")
    reading = (
        "A share is prompts won and half of those tied, over all prompts at which a trial met another. Strengths are "
        "Bradley–Terry's (natural logarithm, mean 0), with intervals from a bootstrap over prompts. The judge sees the "
        "validation tasks' answers and no known answer; accuracy is on test tasks that it does not see. A tournament "
        "keeps whoever was there first after a draw, so among equals the earlier one in the grid wins."
    )
    return "\n\n".join([*parts, "## How to read this", reading]) + "\n"


def _facts(found: SearchResult) -> list[str]:
    champion, final, gain = found.outcome.champion, found.final, found.gain()
    lines = [
        f"- champion: **{champion}**; block winners: {', '.join(found.outcome.winners)}",
        f"- budget: {found.budget}; there were {found.tournament_questions}. Everything together asked the judge "
        f"{found.questions} different questions",
        f"- champion against default, judged: {final.wins} won, {final.losses} lost, {final.ties} tied",
    ]
    if gain is not None:
        lines.append(
            f"- champion's accuracy less the default's: {100 * gain.value:+.1f} points, 95 % interval "
            f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        )
    if found.round_robin:
        order = list(found.strengths())
        lines.append(f"- in the full round robin of {len(found.round_robin)} matches the champion is number "
                     f"{order.index(champion) + 1} of {len(order)}, the first is {order[0]}")  # fmt: skip
    lines += [f"- Spearman's ρ, {what}: {value:+.2f}" for what, value in found.correlations().items()]
    if found.diverged:
        lines.append(f"- diverged, and took no part: {', '.join(found.diverged)}")
    return ["\n".join(lines)]


def _table(found: SearchResult) -> str:
    shares, strengths = found.shares(), found.strengths()
    order = sorted(found.names, key=lambda name: -np.nan_to_num(shares[name], nan=-1.0))
    titles = ("trial", "share", "strength", "accuracy", "perplexity", "characters")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in order:
        accuracy, answered = found.accuracy(name), found.answered[name]
        cells = [
            f"**{name}**" if name == found.outcome.champion else name,
            "–" if math.isnan(shares[name]) else f"{shares[name]:.3f}",
            _interval(strengths.get(name), "{:+.2f}", 1),
            _interval(accuracy, "{:.1f} %", 100),
            "–" if answered.perplexity is None else f"{answered.perplexity:.3f}",
            f"{answered.mean_characters:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _harness_table(found: SearchResult) -> str:
    shares, tasks = found.shares(), list(dict.fromkeys(task for of in found.harness.values() for task in of))
    metrics = {task: next(headline(of[task])[0] for of in found.harness.values() if task in of) for task in tasks}
    titles = ["model", "share", "accuracy", "perplexity", *(f"{task}: {name}" for task, name in metrics.items())]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, measured in found.harness.items():
        answered, share = found.answered.get(name), shares.get(name, math.nan)
        cells = [
            name,
            "–" if math.isnan(share) else f"{share:.3f}",
            "–" if answered is None else _interval(found.accuracy(name), "{:.1f} %", 100),
            "–" if answered is None or answered.perplexity is None else f"{answered.perplexity:.3f}",
        ]
        for task in tasks:
            _, value, error = headline(measured.get(task, {}))
            cells.append(
                "–" if math.isnan(value) else f"{value:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")
            )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(cell: Interval | None, form: str, scale: float) -> str:
    if cell is None:
        return "–"
    value, low, high = (form.format(scale * number) for number in (cell.value, cell.low, cell.high))
    return f"{value} ({low} – {high})"


def search_figure(found: SearchResult) -> Figure:
    """The share of points by each setting, and against perplexity; the champion is filled, the default a cross."""
    shares = found.shares()
    paths = ["epoch", *dict.fromkeys(path for trial in found.trials.values() for path, _ in trial.settings)]
    axes = [path for path in paths if len({trial.value(path) for trial in found.trials.values()}) > 1]
    figure, panels = make_panels(len(axes) + 1, width=3.0, height=2.8)
    for axis, path in zip(panels, axes, strict=False):
        values = list(dict.fromkeys(trial.value(path) for trial in found.trials.values()))
        values = sorted(values) if all(isinstance(value, (int, float)) for value in values) else values
        means = []
        for place, value in enumerate(values):
            of_value = [name for name, trial in found.trials.items() if trial.value(path) == value]
            heights = [shares[name] for name in of_value if not math.isnan(shares[name])]
            means.append(sum(heights) / len(heights) if heights else math.nan)
            for name in of_value:
                _dot(axis, place, shares[name], name, found)
        axis.plot(range(len(values)), means, color=GREY, linewidth=1, zorder=0)
        labels = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        axis.set_xticks(range(len(values)), labels, fontsize=8)
        axis.set_xlim(-0.5, len(values) - 0.5)
        label = "optimizer" if path == "optimizer.name" else path.rpartition(".")[2].replace("_", " ")
        axis.set_xlabel(label, fontsize=9)
    last = panels[-1]
    for name in found.names:
        perplexity = found.answered[name].perplexity
        if perplexity is not None:
            _dot(last, perplexity, shares[name], name, found)
    last.set_xlabel("perplexity of validation responses", fontsize=9)
    panels[0].set_ylabel("share of points", fontsize=9)
    figure.suptitle(f"{found.base}; filled: champion; cross: default; line: mean", fontsize=9)
    return figure


def _dot(axis: Any, x: float, y: float, name: str, found: SearchResult) -> None:
    if name == DEFAULT:
        axis.plot([x], [y], marker="x", color=BLACK, markersize=7, linestyle="")
        return
    champion = name == found.outcome.champion
    colour = ORANGE if champion else BLUE
    axis.plot([x], [y], marker="o", color=colour, markersize=6 if champion else 4, linestyle="",
              markerfacecolor=colour if champion else "white")  # fmt: skip


def as_json(found: SearchResult) -> dict[str, Any]:
    """The figures of one base model, as JSON holds them."""

    def of(cell: Interval | None) -> dict[str, float] | None:
        return None if cell is None else dataclasses.asdict(cell)

    shares, strengths = found.shares(), found.strengths()
    return {
        "base": found.base,
        "champion": found.outcome.champion,
        "block_winners": list(found.outcome.winners),
        "budget": {
            name: getattr(found.budget, name) for name in ("matches", "comparisons", "num_prompts", "questions")
        },
        "tournament_questions": found.tournament_questions,
        "questions": found.questions,
        "champion_against_default": {name: getattr(found.final, name) for name in ("wins", "losses", "ties", "unread")},
        "gain": of(found.gain()),
        "correlations": found.correlations(),
        "diverged": list(found.diverged),
        "lm_eval": found.harness,
        "trials": {
            name: {
                "share": None if math.isnan(shares[name]) else shares[name],
                "strength": of(strengths.get(name)),
                "accuracy": of(found.accuracy(name)),
                "perplexity": found.answered[name].perplexity,
                "mean_characters": found.answered[name].mean_characters,
            }
            for name in found.names
        },
    }  # fmt: skip


def write_search_report(results: Sequence[SearchResult], directory: Path, *, title: str) -> Path:
    """Writes ``metrics.json``, ``report.md`` and a figure a base model; returns the path of ``report.md``."""
    figures = {}
    for found in results:
        file = directory / "figures" / f"{found.base}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        search_figure(found).savefig(file, dpi=160, metadata={"Software": None})
        figures[found.base] = file.relative_to(directory).as_posix()
    write_json(directory / "metrics.json", [as_json(found) for found in results])
    path = directory / "report.md"
    write_text(path, markdown(results, title=title, figures=figures))
    return path
