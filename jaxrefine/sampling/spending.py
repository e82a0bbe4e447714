"""What is paid to an endpoint: reserved before a request goes out, settled when it is back, kept on disk."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import Any

from jaxrefine.artefacts.journal import Journal


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the server counted them."""

    prompt_tokens: int
    reply_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prices:
    """US dollars per million tokens.

    >>> Prices(prompt=0.5, reply=2.0).cost(Usage(1_000_000, 500_000))
    1.5
    """

    prompt: float = 0.0
    reply: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Of a call, in US dollars."""
        return (usage.prompt_tokens * self.prompt + usage.reply_tokens * self.reply) / 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spending:
    """Totals of a ledger, over all runs that wrote into it."""

    attempts: int = 0
    """Requests that went out, retries counted."""
    reported: int = 0
    """Attempts of which the server said how many tokens they took."""
    assumed: int = 0
    """Attempts that may have been billed and of which no usage is known (no usage in the reply, a hang, a cut
    connection, a killed process): each is charged its upper bound."""
    prompt_tokens: int = 0
    """Of the reported attempts."""
    reply_tokens: int = 0
    """Of the reported attempts."""
    assumed_tokens: int = 0
    """Prompt and reply tokens that the assumed attempts are charged."""
    cost: float = 0.0
    """US dollars, of reported and assumed attempts."""

    @property
    def tokens(self) -> int:
        """All that are charged."""
        return self.prompt_tokens + self.reply_tokens + self.assumed_tokens


class BudgetSpentError(Exception):
    """The next attempt could exceed the budget, so it is not made."""


class Ledger:
    """A journal of attempts: two lines each, before it goes out and when its price is known.

    An attempt is let out only if all that is charged, all that is under way at its upper bound, and its own upper
    bound stay within the budgets; so they are never exceeded as long as the server keeps to ``max_tokens``. An
    attempt that a killed process left open is charged its upper bound when the ledger is opened again.

    >>> import tempfile, pathlib
    >>> ledger = Ledger(pathlib.Path(tempfile.mkdtemp()) / "ledger.jsonl", prices=Prices(reply=2.0), token_budget=100)
    >>> asyncio.run(ledger.room(Usage(10, 50)))
    >>> ledger.settle(ledger.send("a", Usage(10, 50)), reported=Usage(8, 20))
    4e-05
    >>> asyncio.run(ledger.room(Usage(10, 70)))
    Traceback (most recent call last):
    jaxrefine.sampling.spending.BudgetSpentError: 28 tokens are spent; another attempt may take 80: ...
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        prices: Prices,
        token_budget: int | None = None,
        cost_budget: float | None = None,
    ):
        self._journal = Journal(path)
        self._prices, self._token_budget, self._cost_budget = prices, token_budget, cost_budget
        self._under_way: dict[int, tuple[Usage, float]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self.spending = Spending()
        for key, record in self._journal.records().items():
            self._replay(str(key), record)
        self.settle_open()

    async def room(self, bound: Usage) -> None:
        """Waits until an attempt fits the budgets beside those under way.

        Raises:
          BudgetSpentError: it does not fit, and nothing is under way that could make room.
        """
        while said := self._excess(bound, self._prices.cost(bound)):
            if not self._under_way:
                raise BudgetSpentError(said)
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def send(self, request: str, bound: Usage) -> int:
        """Writes that an attempt goes out; right after ``room``, with no await between them.

        Args:
          request: its key, for the record.
          bound: the most that the attempt can take.

        Returns:
          The number of the attempt, for ``settle``.
        """
        number, cost = self.spending.attempts, self._prices.cost(bound)
        record = {"request": request, "prompt_tokens": bound.prompt_tokens, "reply_tokens": bound.reply_tokens}
        self._journal.append(f"{number} out", record | {"cost": cost})
        self._count(number, bound, cost)
        return number

    def settle(self, number: int, *, reported: Usage | None = None, billed: bool = True) -> float:
        """Writes what an attempt took.

        Args:
          number: of the attempt.
          reported: what the server said; None charges the upper bound.
          billed: False where a refused attempt costs nothing (and ``reported`` is None).

        Returns:
          Its cost in US dollars.
        """
        bound, cost = self._under_way[number]
        how = "reported" if reported is not None else "assumed" if billed else "free"
        if reported is not None:
            bound, cost = reported, self._prices.cost(reported)
        elif not billed:
            bound, cost = Usage(0, 0), 0.0
        record = {"usage": how, "prompt_tokens": bound.prompt_tokens, "reply_tokens": bound.reply_tokens, "cost": cost}
        self._journal.append(f"{number} back", record)
        self._charge(number, how, bound, cost)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        return cost

    def settle_open(self) -> None:
        """Charges all attempts under way their upper bounds: nobody waits for them any more."""
        for number in list(self._under_way):
            self.settle(number)

    def sync(self) -> None:
        """Forces the ledger to the disk itself."""
        self._journal.sync()

    def close(self) -> None:
        """Syncs and closes the file."""
        self._journal.close()

    def _excess(self, bound: Usage, cost: float) -> str:
        """Why an attempt does not fit; "" where it does."""
        under_way = self._under_way.values()
        if self._token_budget is not None:
            tokens = bound.prompt_tokens + bound.reply_tokens
            open_tokens = sum(usage.prompt_tokens + usage.reply_tokens for usage, _ in under_way)
            if self.spending.tokens + open_tokens + tokens > self._token_budget:
                spent, budget = self.spending.tokens, self._token_budget
                return f"{spent} tokens are spent; another attempt may take {tokens}: more than the budget of {budget}"
        if self._cost_budget is not None:
            open_cost = sum(open_cost for _, open_cost in under_way)
            if self.spending.cost + open_cost + cost > self._cost_budget:
                spent_cost = self.spending.cost
                return (
                    f"${spent_cost:.6g} are spent; another attempt may cost ${cost:.6g}: more than the budget of "
                    f"${self._cost_budget:.6g}"
                )
        return ""

    def _count(self, number: int, bound: Usage, cost: float) -> None:
        self._under_way[number] = bound, cost
        self.spending = dataclasses.replace(self.spending, attempts=self.spending.attempts + 1)

    def _charge(self, number: int, how: str, usage: Usage, cost: float) -> None:
        del self._under_way[number]
        was = self.spending
        self.spending = dataclasses.replace(was, cost=was.cost + cost)
        if how == "reported":
            self.spending = dataclasses.replace(
                self.spending,
                reported=was.reported + 1,
                prompt_tokens=was.prompt_tokens + usage.prompt_tokens,
                reply_tokens=was.reply_tokens + usage.reply_tokens,
            )
        elif how == "assumed":
            tokens = usage.prompt_tokens + usage.reply_tokens
            self.spending = dataclasses.replace(
                self.spending, assumed=was.assumed + 1, assumed_tokens=was.assumed_tokens + tokens
            )

    def _replay(self, key: str, record: dict[str, Any]) -> None:
        number, _, event = key.partition(" ")
        usage, cost = Usage(record["prompt_tokens"], record["reply_tokens"]), float(record["cost"])
        if event == "out":
            self._count(int(number), usage, cost)
        else:
            self._charge(int(number), record["usage"], usage, cost)
