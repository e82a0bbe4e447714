"""How far a loop is: a bar with rate and time left on a terminal, a plain line now and then without one."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

T = TypeVar("T")


class progress(Generic[T]):  # noqa: N801  (reads as a function: ``for x in progress(xs, "reading")``)
    """Shows how far a loop is.

    Args:
      work: an iterable to loop over, or the number of units (None: unknown) for a loop that calls ``advance``.
      description: what is being done.
      total: number of units of an iterable that has no length.
      initial: units done before (a resumed loop); they count as done, not in the rate.
      unit: what is counted, in the plural.
      console: where to; default stderr.
      interval_seconds: time between two plain lines.

    >>> import io
    >>> screen = Console(file=io.StringIO())
    >>> sum(progress([1, 2, 3], "adding", unit="numbers", console=screen))
    6
    >>> with progress(2, "training", unit="steps", console=screen) as bar:
    ...     bar.advance(1, loss=0.25)
    ...     bar.advance(1, loss=0.125)
    """

    @overload
    def __init__(
        self,
        work: Iterable[T],
        description: str,
        *,
        total: int | None = ...,
        initial: int = ...,
        unit: str = ...,
        console: Console | None = ...,
        interval_seconds: float = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: progress[Any],
        work: int | None,
        description: str,
        *,
        total: int | None = ...,
        initial: int = ...,
        unit: str = ...,
        console: Console | None = ...,
        interval_seconds: float = ...,
    ) -> None: ...

    def __init__(
        self,
        work: Iterable[T] | int | None,
        description: str,
        *,
        total: int | None = None,
        initial: int = 0,
        unit: str = "items",
        console: Console | None = None,
        interval_seconds: float = 10.0,
    ):
        self._items: Iterable[T] | None = None
        if isinstance(work, int):
            total = work
        elif work is not None:
            self._items = work
            if total is None and isinstance(work, Sized):
                total = len(work)
        self.description, self.unit, self.total = description, unit, total
        self.done = initial
        self._initial = initial
        self._fields: dict[str, Any] = {}
        self._console = console if console is not None else Console(stderr=True)
        self._interval = interval_seconds
        self._started = self._last_line = time.monotonic()
        self._screen: _Screen | None = None
        self._task: TaskID | None = None

    def __iter__(self) -> Iterator[T]:
        """The items, one unit each."""
        if self._items is None:
            raise TypeError(f"progress {self.description!r} counts units: enter it with `with` and call advance()")
        with self:
            for item in self._items:
                yield item
                self.advance()

    def __enter__(self) -> progress[T]:
        """Starts the clock and shows the bar."""
        self._started = self._last_line = time.monotonic()
        if has_bars(self._console):
            self._screen = _Screen.enter(self._console)
            self._task = self._screen.bars.add_task(
                self.description, total=self.total, completed=self.done, rate="", left="", fields=""
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bar away, and leaves one line of what was done and how fast."""
        seconds = time.monotonic() - self._started
        ending = "in" if error is None else "when it stopped, after"
        if self._screen is not None and self._task is not None:
            self._screen.bars.remove_task(self._task)
            self._screen.bars.refresh()
        self._print(f"{self._counted()} {ending} {duration(seconds)}, {self._rate()}{self._shown_fields()}")
        if self._screen is not None:
            self._screen.leave()
            self._screen = self._task = None

    def advance(self, units: int = 1, **fields: Any) -> None:
        """Counts units as done; fields such as ``loss=0.31`` are shown beside the rate."""
        self.done += units
        self._fields |= fields
        if self._screen is not None and self._task is not None:
            self._screen.bars.update(
                self._task,
                completed=self.done,
                rate=self._rate(),
                left=self._left(),
                fields=self._shown_fields().lstrip(", "),
            )
        elif time.monotonic() - self._last_line >= self._interval:
            self._last_line = time.monotonic()
            left = self._left()
            self._print(f"{self._counted()}, {self._rate()}{', ' + left if left else ''}{self._shown_fields()}")

    def _print(self, text: str) -> None:
        say(f"{self.description}: {text}", self._console)

    def _counted(self) -> str:
        if not self.total:
            return f"{self.done} {self.unit}"
        return f"{self.done}/{self.total} {self.unit}"

    def _units_per_second(self) -> float:
        seconds = time.monotonic() - self._started
        return (self.done - self._initial) / seconds if seconds > 0 else 0.0

    def _rate(self) -> str:
        rate = self._units_per_second()
        if 0 < rate < 0.1:
            return f"{1 / rate:.3g} s each"
        return f"{rate:.0f} {self.unit}/s" if rate >= 100 else f"{rate:.3g} {self.unit}/s"

    def _left(self) -> str:
        rate = self._units_per_second()
        if self.total is None or rate == 0 or self.done >= self.total:
            return ""
        return f"{duration((self.total - self.done) / rate)} left"

    def _shown_fields(self) -> str:
        shown = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in self._fields.values())
        return "".join(f", {name} {value}" for name, value in zip(self._fields, shown, strict=True))


def say(text: str, console: Console | None = None) -> None:
    """Prints a line as it is, above the bars where a console shows any; default stderr."""
    console = console if console is not None else Console(stderr=True)
    screen = _Screen.of(console)
    (screen.bars.console if screen is not None else console).print(text, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> [duration(seconds) for seconds in (0.25, 12.3, 75, 3700)]
    ['0.25 s', '12 s', '1:15 min', '1:01 h']
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02d} h"


def has_bars(console: Console) -> bool:
    """Whether a console can redraw: a terminal, or a notebook that has ipywidgets."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


class _Screen:
    """The one live display of a console: bars inside bars share it, the outermost starts and stops it."""

    _open: dict[int, _Screen] = {}  # noqa: RUF012  (by id of the file that the console writes to)

    def __init__(self, console: Console):
        self._key = id(console.file)
        self._users = 0
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[fields]}", style="dim", markup=False),
            console=console,
            transient=True,
        )

    @classmethod
    def of(cls, console: Console) -> _Screen | None:
        return cls._open.get(id(console.file))

    @classmethod
    def enter(cls, console: Console) -> _Screen:
        screen = cls.of(console)
        if screen is None:
            screen = cls._open[id(console.file)] = cls(console)
            screen.bars.start()
        screen._users += 1
        return screen

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            self.bars.stop()
            del self._open[self._key]
