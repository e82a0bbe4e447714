"""The scorers of LMentry's 25 tasks: whether a reply is right, decided by a rule from the task's definition.

The released scorers match a reply with lists of phrasings, some of them looser than the task (a lone "beach." passes as
a sentence that contains "beach"). These read what a reply claims (``lmentry_text``, ``lmentry_choices``) and check the
claim; a reply that claims nothing readable is wrong in both.

Source: Efrat et al. 2022, arXiv:2211.02069, Table 1 (the tasks).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Candidates
from jaxrefine.data.lmentry import TASK_OF
from jaxrefine.evaluation.lmentry_choices import RELATIONS, chosen, chosen_of_several, yes_or_no
from jaxrefine.evaluation.lmentry_text import claimed, is_only, mention, plain, with_digits, words

Metadata = Mapping[str, Any]
Scorer = Callable[[str, Metadata], bool]
"""Of a plain reply and an example's metadata."""

_AFTER = r"(?:after|succeeds|succeeding|follows|following)"
_BEFORE = r"(?:before|precedes|preceding)"
_FIRST = re.compile(r"\b(?:first|begins?|beginning|starts?|starting|initial)\b")
_LAST = re.compile(r"\b(?:last|ends?|ending|final)\b")
_DIFFERENCE = re.compile(r"\b(?:by (\d+|a single)|(\d+|a single) (?:more|fewer|less)) letters?\b")
_LEAD_IN = re.compile(
    r"\A(?:[^:]{0,80}\b(?:sentence|answer|here)\b[^:]{0,80}:"
    r"|(?:the|an?|one|my) sentence (?:(?:(?:that|which) )?(?:starts|starting|ends|ending|begins) with \S+ )?is:?)\s*"
)
_REAL_WORD = re.compile(r"[a-z][a-z'-]*[a-z]|[ai]")


def score_reply(reply: str, example: Candidates, *, cut: bool = False) -> bool:
    """Whether a reply to an example of ``read_lmentry_task`` is right.

    A reply without a letter or digit is wrong, and so is one that only repeats the question.

    Args:
        reply: a model's.
        example: its ``meta`` has ``task`` and ``metadata``.
        cut: judge only what stands before the first line end and full stop, as is needed for models that do not stop.

    Raises:
        ValueError: an example of no LMentry task.

    >>> metadata = {"answer": "chat", "distractor": "no", "answer_index": 1, "template_id": 0}
    >>> example = Candidates("1", "Which is longer?", meta={"task": "more_letters", "metadata": metadata})
    >>> score_reply("“Chat” has more letters than “no”.", example), score_reply("No.", example)
    (True, False)
    """
    task = example.meta.get("task")
    if not isinstance(task, str) or task not in TASK_OF:
        raise ValueError(f"example {example.id!r}: {unknown_name(str(task), TASK_OF, 'LMentry task')}")
    text = plain(reply, cut=cut)
    question = example.meta.get("instruction", example.prompt)
    if not words(text) or words(text) == words(plain(question)):
        return False
    return SCORERS[TASK_OF[task]](text, example.meta["metadata"])


def _choice(task: str) -> Scorer:
    def score(text: str, metadata: Metadata) -> bool:
        answer, distractor = str(metadata["answer"]).lower(), str(metadata["distractor"]).lower()
        options = {name: mention(name) for name in (answer, distractor)}
        return chosen(text, options, RELATIONS[task]) == answer

    return score


def _letters(task: str) -> Scorer:
    by_choice = _choice(task)

    def score(text: str, metadata: Metadata) -> bool:
        difference = abs(len(metadata["answer"]) - len(metadata["distractor"]))
        for stated in _DIFFERENCE.findall(with_digits(text)):
            if int("".join(stated).replace("a single", "1")) != difference:
                return False
        return by_choice(text, metadata)

    return score


def _number(task: str) -> Scorer:
    by_choice = _choice(task)

    def score(text: str, metadata: Metadata) -> bool:
        return by_choice(with_digits(text).replace(">", " bigger than ").replace("<", " smaller than "), metadata)

    return score


def _associated(*, least: bool) -> Scorer:
    def score(text: str, metadata: Metadata) -> bool:
        answer = metadata["answer"].lower()
        options = {name: mention(name) for name in (answer, *map(str.lower, metadata["distractors"]))}
        return chosen_of_several(text, options, negated=least) == answer

    return score


def _any_from_category(text: str, metadata: Metadata) -> bool:
    return yes_or_no(text) == ("yes" if metadata["num_words"] > metadata["num_distractors"] else "no")


def _all_from_category(text: str, metadata: Metadata) -> bool:
    return yes_or_no(text) == ("yes" if metadata["num_distractors"] == 0 else "no")


def _without_sentence(text: str, sentence: str) -> str:
    """A text in which "the sentence" stands for the sentence that it quotes."""
    repeated = r"[^a-z0-9]+".join(re.escape(word) for word in words(plain(sentence)))
    return re.sub(rf"(?<![a-z0-9]){repeated}(?![a-z0-9])[.!?]?", "the sentence", text)


def _neighbour(wanted: str, opposite: str) -> Scorer:
    """Of word_after and word_before: the relation of the answer to the query, and its opposite."""

    def score(text: str, metadata: Metadata) -> bool:
        answer, query = metadata["answer"].lower(), metadata["query"].lower()
        if is_only(text, answer):
            return True
        text = _without_sentence(text, metadata["sentence"])
        gap = r"[\s\"']+(?:the word[\s\"']+)?"
        if re.search(rf"\b{opposite}{gap}{re.escape(query)}\b", text):
            return False
        if re.search(rf"\b{wanted}{gap}{re.escape(answer)}\b", text):
            return query == answer
        passive = "followed|succeeded" if wanted == _AFTER else "preceded"
        turned = rf"(?:\b{opposite}|\b(?:{passive}) by){gap}{re.escape(answer)}\b"
        if re.search(rf"\b{re.escape(query)}\b.{{0,200}}{turned}", text):
            return True
        return claimed(text, ignored=() if answer == query else (query,)) == answer

    return score


def _end_word(own: re.Pattern[str], other: re.Pattern[str]) -> Scorer:
    """Of first_word and last_word."""

    def score(text: str, metadata: Metadata) -> bool:
        answer = metadata["answer"].lower()
        if is_only(text, answer):
            return True
        text = _without_sentence(text, metadata["sentence"])
        if text.strip("\"'. ") == "the sentence" or (other.search(text) and not own.search(text)):
            return False
        return claimed(text) == answer

    return score


def _end_letter(own: re.Pattern[str], other: re.Pattern[str]) -> Scorer:
    """Of first_letter and last_letter."""

    def score(text: str, metadata: Metadata) -> bool:
        answer, word = metadata["answer"].lower(), metadata["word"].lower()
        if is_only(text, answer):
            return True
        if other.search(text) and not own.search(text):
            return False
        return claimed(text, ignored=() if word == answer else (word,)) == answer

    return score


def _sentence_containing(text: str, metadata: Metadata) -> bool:
    return len(words(text)) > 1 and bool(mention(metadata["word"].lower()).search(text))


def _sentence_not_containing(text: str, metadata: Metadata) -> bool:
    return len(words(text)) > 1 and not mention(metadata["word"].lower()).search(text)


def _sentences(text: str) -> list[list[str]]:
    """The words of what may be the sentence that a reply makes: what it quotes, or what follows a lead-in."""
    quoted = [words(part) for part in re.findall(r"\"([^\"]+)\"", text)]
    return [*(found for found in quoted if len(found) > 1), words(_LEAD_IN.sub("", text, count=1))]


def _starts_with_word(text: str, metadata: Metadata) -> bool:
    return any(len(found) > 1 and found[0] == metadata["word"].lower() for found in _sentences(text))


def _ends_with_word(text: str, metadata: Metadata) -> bool:
    return any(len(found) > 1 and found[-1] == metadata["word"].lower() for found in _sentences(text))


def _made_word(fits: Callable[[str, str], bool], *, repeated: bool = True) -> Scorer:
    """Of the tasks that ask for a word with a property; several words will do where all of them have it."""

    def score(text: str, metadata: Metadata) -> bool:
        letter = metadata["letter"].lower()
        found = words(text)
        if repeated and all(_REAL_WORD.fullmatch(word) and fits(word, letter) for word in found):
            return True
        word = claimed(text, ignored=(letter,))
        return word is not None and bool(_REAL_WORD.fullmatch(word)) and fits(word, letter)

    return score


SCORERS: dict[str, Scorer] = {
    "sentence_containing": _sentence_containing,
    "sentence_not_containing": _sentence_not_containing,
    "word_containing": _made_word(lambda word, letter: letter in word),
    "word_not_containing": _made_word(lambda word, letter: letter not in word, repeated=False),
    "most_associated_word": _associated(least=False),
    "least_associated_word": _associated(least=True),
    "any_words_from_category": _any_from_category,
    "all_words_from_category": _all_from_category,
    "first_alphabetically": _choice("first_alphabetically"),
    "more_letters": _letters("more_letters"),
    "less_letters": _letters("less_letters"),
    "bigger_number": _number("bigger_number"),
    "smaller_number": _number("smaller_number"),
    "rhyming_word": _choice("rhyming_word"),
    "homophones": _choice("homophones"),
    "word_after": _neighbour(_AFTER, _BEFORE),
    "word_before": _neighbour(_BEFORE, _AFTER),
    "starts_with_word": _starts_with_word,
    "ends_with_word": _ends_with_word,
    "starts_with_letter": _made_word(lambda word, letter: word.startswith(letter)),
    "ends_with_letter": _made_word(lambda word, letter: word.endswith(letter)),
    "first_word": _end_word(_FIRST, _LAST),
    "last_word": _end_word(_LAST, _FIRST),
    "first_letter": _end_letter(_FIRST, _LAST),
    "last_letter": _end_letter(_LAST, _FIRST),
}
"""One a core task."""
