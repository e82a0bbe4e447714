"""Bars on a terminal, plain lines without one."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from jaxrefine.artefacts.progress import duration, has_bars, progress


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces the clock of the module."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def _console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=terminal, width=120, _environ={"TERM": "xterm"}), screen


def test_without_a_terminal_there_is_a_line_an_interval_with_rate_time_left_and_fields(clock: Clock):
    console, screen = _console()
    with progress(100, "training", unit="steps", console=console, interval_seconds=10) as bar:
        for step in range(100):
            clock.now += 0.5
            bar.advance(1, loss=1.0 / (step + 1))
    lines = screen.getvalue().splitlines()
    assert lines[0] == "training: 20/100 steps, 2 steps/s, 40 s left, loss 0.05"
    assert lines[-1] == "training: 100/100 steps in 50 s, 2 steps/s, loss 0.01"
    assert len(lines) == 6


def test_units_done_before_count_as_done_but_not_in_the_rate(clock: Clock):
    console, screen = _console()
    with progress(100, "training", unit="steps", console=console, initial=80, interval_seconds=1) as bar:
        clock.now += 10
        bar.advance(10)
    assert screen.getvalue().splitlines()[0] == "training: 90/100 steps, 1 steps/s, 10 s left"


def test_slow_units_are_shown_in_seconds_each(clock: Clock):
    console, screen = _console()
    with progress(3, "variants", console=console, interval_seconds=1) as bar:
        clock.now += 20
        bar.advance()
    assert screen.getvalue().splitlines()[0] == "variants: 1/3 items, 20 s each, 40 s left"


def test_an_iterable_of_unknown_length_shows_no_time_left(clock: Clock):
    console, screen = _console()
    for _ in progress(iter(range(5)), "reading", unit="lines", console=console, interval_seconds=2):
        clock.now += 1
    assert screen.getvalue().splitlines() == [
        "reading: 2 lines, 1 lines/s",
        "reading: 4 lines, 1 lines/s",
        "reading: 5 lines in 5 s, 1 lines/s",
    ]


def test_a_loop_that_fails_says_where_it_stopped(clock: Clock):
    console, screen = _console()
    with pytest.raises(RuntimeError), progress(5, "reading", console=console) as bar:
        clock.now += 2
        bar.advance(2)
        raise RuntimeError
    assert screen.getvalue() == "reading: 2/5 items when it stopped, after 2 s, 1 items/s\n"


def test_a_terminal_gets_one_live_display_for_bars_inside_bars():
    console, screen = _console(terminal=True)
    assert has_bars(console)
    for _ in progress([1, 2], "outer", console=console):
        for _ in progress([1, 2, 3], "inner", console=console):
            pass
    shown = screen.getvalue()
    line_start = r"(?:\n|\r|\x1b\[2K)"
    assert len(re.findall(line_start + "inner: 3/3 items in", shown)) == 2
    assert len(re.findall(line_start + "outer: 2/2 items in", shown)) == 1
    assert "\x1b[" in shown


def test_markup_in_a_description_is_shown_as_it_is(clock: Clock):
    console, screen = _console()
    list(progress([1], "[bold]x[/]", console=console))
    assert screen.getvalue().startswith("[bold]x[/]: 1/1 items")


def test_a_counter_cannot_be_looped_over():
    with pytest.raises(TypeError, match="enter it with `with`"):
        iter(progress(3, "training")).__next__()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (9.6, "9.6 s"),
        (59.4, "59 s"),
        (60, "1:00 min"),
        (3599, "59:59 min"),
        (7260, "2:01 h"),
    ],
)
def test_durations_are_said_for_people(seconds: float, said: str):
    assert duration(seconds) == said
