"""Tournaments worked by hand: who meets whom, what it costs, ties, going on where a run was stopped."""

from __future__ import annotations

import itertools

import pytest

from jaxrefine.artefacts.journal import Journal
from jaxrefine.selection.tournament import Bracket, Match, Matches, make_bracket, play, round_robin


class Table:
    """Plays matches of given outcomes, and remembers which."""

    def __init__(self, outcomes: dict[str, str], prompts: int = 3) -> None:
        self.outcomes, self.prompts, self.played = outcomes, prompts, []

    def __call__(self, one: str, other: str) -> Match:
        self.played.append(one + other)
        letters = {"1": "first", "2": "second", "=": "tie", "?": "unparsable"}
        outcomes = tuple(letters[letter] for letter in self.outcomes[one + other])
        return Match(one=one, other=other, outcomes=outcomes, questions=2 * self.prompts)


def by_worth(worth: dict[str, int]) -> Table:
    pairs = itertools.permutations(worth, 2)
    return Table({a + b: "111" if worth[a] > worth[b] else "222" for a, b in pairs})


def test_the_papers_tournament_takes_79_matches_and_158_comparisons():
    bracket = make_bracket([f"trial {n}" for n in range(80)], 4)
    assert [len(block) for block in bracket.blocks] == [20, 20, 20, 20]
    budget = bracket.budget(num_prompts=170)
    assert (budget.matches, budget.comparisons, budget.questions) == (79, 158, 26_860)
    assert 5 * budget.comparisons == 790  # five base models
    assert "158 comparisons" in str(budget)


def test_the_incumbent_walks_through_its_block_and_the_winners_meet():
    table = by_worth({"a": 2, "b": 5, "c": 1, "d": 4, "e": 6, "f": 3})
    outcome = play(Bracket((("a", "b", "c"), ("d", "e", "f"))), table)
    assert table.played == ["ab", "bc", "de", "ef", "be"]
    assert outcome.winners == ("b", "e")
    assert outcome.champion == "e"
    assert len(outcome.matches) == 5


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 7])
def test_whoever_beats_all_wins_from_any_place_in_any_block_at_the_budgeted_cost(num_blocks: int):
    names = "abcdefg"
    for best in names:
        table = by_worth({name: 10 if name == best else ord(name) % 5 for name in names})
        bracket = make_bracket(names, num_blocks)
        outcome = play(bracket, table)
        assert outcome.champion == best
        assert len(table.played) == bracket.budget(num_prompts=3).matches == 6


@pytest.mark.parametrize(
    ("outcomes", "winner"),
    [("122", "b"), ("112", "a"), ("12=", "a"), ("===", "a"), ("2??", "b"), ("???", "a"), ("12?", "a")],
)
def test_after_a_draw_the_one_that_was_there_first_stays(outcomes: str, winner: str):
    assert play(Bracket((("a", "b"),)), Table({"ab": outcomes})).champion == winner


def test_a_circle_ends_with_its_last_challenger():
    table = Table({"ab": "222", "bc": "222"})  # and a would beat c, whom it never meets
    assert play(make_bracket("abc", 1), table).champion == "c"


def test_a_match_turned_round_counts_for_the_other_one():
    match = Match(one="a", other="b", outcomes=("first", "second", "first", "tie", "unparsable"), questions=10)
    turned = match.turned()
    assert (match.wins, match.losses, match.ties, match.unread) == (2, 1, 1, 1)
    assert (turned.one, turned.wins, turned.losses, turned.ties, turned.unread) == ("b", 1, 2, 1, 1)
    assert turned.winner == match.winner == "a"
    assert turned.turned() == match


def test_a_round_robin_takes_over_what_the_tournament_played(tmp_path):
    table = by_worth({"a": 1, "b": 2, "c": 3})
    with Journal(tmp_path / "matches.jsonl") as journal:
        matches = Matches(table, journal, num_prompts=3)
        play(make_bracket("abc", 1), matches)
        assert table.played == ["ab", "bc"]
        found = round_robin("abc", matches)
    assert table.played == ["ab", "bc", "ac"]
    told = [(match.one, match.other, match.winner) for match in found]
    assert told == [("a", "b", "b"), ("a", "c", "c"), ("b", "c", "c")]
    assert sum(match.questions for match in found) == 18  # three matches, two orders, three prompts


def test_a_stopped_tournament_goes_on_after_its_last_match(tmp_path):
    worth = {"a": 2, "b": 5, "c": 1, "d": 4}
    stopped = by_worth(worth)
    stopped.outcomes.pop("bd")
    with Journal(tmp_path / "matches.jsonl") as journal, pytest.raises(KeyError):
        play(make_bracket("abcd", 2), Matches(stopped, journal, num_prompts=3))
    again = by_worth(worth)
    with Journal(tmp_path / "matches.jsonl") as journal:
        outcome = play(make_bracket("abcd", 2), Matches(again, journal, num_prompts=3))
    assert again.played == ["bd"]
    assert outcome == play(make_bracket("abcd", 2), by_worth(worth))


def test_a_kept_match_is_told_from_the_side_that_asks(tmp_path):
    with Journal(tmp_path / "matches.jsonl") as journal:
        Matches(Table({"ab": "112"}), journal, num_prompts=3)("a", "b")
        kept = Matches(Table({}), journal, num_prompts=3)
        assert kept("b", "a").outcomes == ("second", "second", "first")
        assert len(kept) == 1


def test_matches_on_other_prompts_are_refused(tmp_path):
    with Journal(tmp_path / "matches.jsonl") as journal:
        Matches(Table({"ab": "112"}), journal, num_prompts=3)("a", "b")
        with pytest.raises(ValueError, match="'a' and 'b' has 3 prompts; this tournament has 4"):
            Matches(Table({}), journal, num_prompts=4)
        with pytest.raises(ValueError, match="does not meet itself: 'a'"):
            Matches(Table({}), journal, num_prompts=3)("a", "a")


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ((), "with competitors in each"),
        ((("a",), ()), "with competitors in each"),
        ((("a", "b"), ("b",)), "'b' is named twice"),
    ],
)
def test_brackets_that_cannot_be_are_refused(blocks, message: str):
    with pytest.raises(ValueError, match=message):
        Bracket(blocks)


def test_there_are_no_more_blocks_than_competitors():
    assert make_bracket("ab", 2).blocks == (("a",), ("b",))
    with pytest.raises(ValueError, match="2 competitors make 1 to 2 blocks, got num_blocks = 3"):
        make_bracket("ab", 3)
