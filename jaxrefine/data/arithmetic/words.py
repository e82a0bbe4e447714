"""Who and what the word problems are about: names, places, things, pastimes and idle remarks."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topic:
    """A setting: things that may be counted there, what holds them (plurals in -s), and where they are found."""

    things: tuple[str, ...]
    containers: tuple[str, ...]
    places: tuple[str, ...]


TOPICS: dict[str, Topic] = {
    "kitchen": Topic(
        things=("cookies", "muffins", "eggs", "rolls", "tarts", "lemons"),
        containers=("trays", "tins", "bowls"),
        places=("bakery", "cafe", "kitchen"),
    ),
    "garden": Topic(
        things=("apples", "plums", "pears", "roses", "carrots", "seeds"),
        containers=("baskets", "crates", "pots"),
        places=("farm", "park", "market"),
    ),
    "school": Topic(
        things=("pencils", "books", "stickers", "cards", "crayons", "pens"),
        containers=("cases", "packs", "drawers"),
        places=("school", "library", "club"),
    ),
    "toys": Topic(
        things=("marbles", "blocks", "beads", "shells", "stamps", "coins"),
        containers=("bags", "jars", "cups"),
        places=("beach", "fair", "attic"),
    ),
}

PEOPLE: tuple[tuple[str, str], ...] = (
    ("Mia", "she"), ("Tom", "he"), ("Ana", "she"), ("Ben", "he"), ("Lena", "she"), ("Omar", "he"),
    ("Rosa", "she"), ("Hugo", "he"), ("Nina", "she"), ("Ivan", "he"), ("Suki", "she"), ("Paul", "he"),
    ("Vera", "she"), ("Leo", "he"), ("Dora", "she"), ("Karl", "he"), ("Amal", "she"), ("Finn", "he"),
    ("Zoe", "she"), ("Raj", "he"),
)  # fmt: skip

PASTIMES: tuple[tuple[str, str, str], ...] = (
    ("reads", "read", "pages"),
    ("swims", "swim", "laps"),
    ("walks", "walk", "miles"),
    ("draws", "draw", "pictures"),
    ("solves", "solve", "puzzles"),
    ("writes", "write", "letters"),
)

DAYS: tuple[str, ...] = ("Monday", "Tuesday")

LATER_DAYS: tuple[str, ...] = ("Friday", "Sunday")

GOODS: tuple[str, ...] = ("hat", "lamp", "kite", "ball", "doll", "game")

IDLE: tuple[str, ...] = (
    "The bus takes {n} minutes.",
    "There are {n} trees near the {place}.",
    "It has been raining for {n} days.",
    "The {place} has {n} windows.",
    "The {place} is {n} years old.",
    "A cat sleeps there for {n} hours.",
    "The clock at the {place} is {n} minutes slow.",
    "The {place} opens in {n} minutes.",
)
"""Sentences whose number has nothing to do with the question."""
