"""LMentry's scorers: for every task, replies that are right and wrong by the task's definition, worked by hand."""

from __future__ import annotations

import gzip
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrefine.data.examples import Candidates
from jaxrefine.data.lmentry import CORE_TASKS, TASK_OF, read_lmentry
from jaxrefine.evaluation.lmentry_scorers import SCORERS, score_reply
from jaxrefine.evaluation.lmentry_text import claimed, plain, with_digits

SENTENCE = "Birds sing before the sun is up"

CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "sentence_containing": (
        {"word": "lamp"},
        ["The lamp is lit.", "LAMP oil burns", '"I bought a lamp."', "Is it a lamp-post?"],
        ["lamp", "Lamp.", "The lamps are lit.", "It is dark.", "", "..."],
    ),
    "sentence_not_containing": (
        {"word": "lamp"},
        ["It is dark here.", "The lamps are lit.", "Hello there"],
        ["The lamp is lit.", "Dark.", "Lamp!", "", "12 34 lamp"],
    ),
    "word_containing": (
        {"letter": "e"},
        [
            "apple", "Apple.", 'The word "apple"', "e-mail", '"Apple" contains the letter "e".',
            "The answer is apple.", "A word that contains the letter e is egg.", "egg, tree, bee", "An egg",
        ],
        ["dog", "e", "The letter e", '"Dog" contains the letter "e".', "There is a dog here.", "The answer is dog.",
         ""],
    ),
    "word_not_containing": (
        {"letter": "e"},
        ["dog", "Dog.", '"dog"', "The answer is dog.", 'The word "dog" does not contain the letter "e".', "I"],
        ["apple", '"apple" does not contain "e"', "A big dog ran off.", "d", "The answer is apple.", "7"],
    ),
    "most_associated_word": (
        {"answer": "hen", "distractors": ["truck", "bus", "train", "van"], "category": "animals"},
        [
            "hen", 'The word "hen".', "The word most commonly associated with animals is hen.", "animals - hen",
            'Of the words "truck", "bus", "train", "hen", and "van", the word is "hen".',
            'The one nearest to "animals" among "truck," "bus," "train," "hen," and "van" is "hen."',
            "Hen is the most related to animals, unlike truck.",
        ],
        [
            "truck", "truck, bus, train, hen, van", "animals", "The hen is not associated with animals.",
            "The answer is bus.", "Hen and truck", "hen is the least associated",
        ],
    ),
    "least_associated_word": (
        {"answer": "hen", "distractors": ["truck", "bus", "train", "van"], "category": "vehicles"},
        [
            "Hen", "The word least related to vehicles is hen.", "Hen is not associated with vehicles.",
            '"truck", "bus", "train", "hen", and "van": hen',
        ],
        ["van", "vehicles", "Hen is the most related to vehicles.", "bus or van", "The least related word is truck."],
    ),
    "any_words_from_category": (
        {"num_words": 5, "num_distractors": 5},
        ["No", "no.", '"No"', "No, none of them is.", "The answer is no."],
        ["Yes", "yes, no", "yes or no", "Perhaps", "Yes, there are."],
    ),
    "all_words_from_category": (
        {"num_words": 5, "num_distractors": 0},
        ["yes", "Yes.", "Yes, all of them are, no doubt.", "Answer: yes"],
        ["no", "No, one is not.", "either yes or no", "They are."],
    ),
    "first_alphabetically": (
        {"answer": "after", "distractor": "silver", "answer_index": 0},
        [
            "after", 'The word "after".', '"After" comes first.', '"after" comes before "silver" in the dictionary.',
            '"Silver" comes after "after".', "Silver comes last.", "Silver is second alphabetically.",
            'Of the words "after" and "silver", "after" comes first.', "Before silver comes after.",
            "In alphabetical order, after is before silver, because a is before s.",
        ],
        [
            "silver", "Silver comes first.", '"silver" comes before "after"', "after, silver", "Neither of them.",
            "After does not come first.", "The first word", "both after and silver",
        ],
    ),
    "more_letters": (
        {"answer": "planet", "distractor": "most", "answer_index": 0},
        [
            "planet", "Planet is longer.", '"Planet" has more letters than "most".', "Most has fewer letters.",
            '"most" is shorter than "planet"', "planet has 2 more letters than most",
            "Planet is longer than most by two letters.", "The longer word is planet.",
            'Of the words "most" and "planet", "planet" has more letters.',
            "While most is shorter, planet is longer.",
            '"most" has 4 letters, while "planet" has 6 letters, so "planet" is longer.',
            "Longer than most is planet.", "Planet, not most, is longer.",
        ],
        [
            "most", "Most is longer.", "planet has three more letters than most", "Planet is shorter than most.",
            "Planet is not longer.", "They have equally many letters.", "planet most",
            "Planet is longer by a single letter.", "Most has 6 letters and planet 4, so most has more letters.",
        ],
    ),
    "less_letters": (
        {"answer": "sun", "distractor": "planet", "answer_index": 1},
        [
            "sun", "The sun", "Sun has fewer letters than planet.", "Planet is longer than sun.",
            "Planet has more letters.",
            "sun has 3 fewer letters", '"planet" or "sun"? Sun.',
        ],
        ["planet", "Planet has fewer letters.", "Sun is longer than planet.", "sun has 2 fewer letters",
         "sun and planet"],
    ),
    "bigger_number": (
        {"answer": 1723, "distractor": 142, "answer_index": 1},
        [
            "1723", "1,723.", "The number 1723", "1723 is bigger than 142.", "142 is smaller than 1,723",
            "One thousand seven hundred and twenty-three", "one thousand, seven hundred twenty three is larger",
            "Of the numbers 142 and 1723, 1723 is bigger.", "The bigger number is 1723.", "142 is not bigger.",
            "1723 > 142", "The bigger number between 142 and 1723 is 1723.",
        ],
        ["142", "one hundred forty-two", "142 > 1723", "The bigger of 1723 and 142 is 142.",
         "142 is bigger than 1723", "723", "11723", "1723 is smaller.", "142 1723",
         "1723.5"],
    ),
    "smaller_number": (
        {"answer": 15, "distractor": 90, "answer_index": 0},
        ["15", "fifteen", "15 is smaller.", "Ninety is bigger than fifteen.", "15 < 90 so 15 is less"],
        ["90", "Ninety.", "15 is bigger than 90.", "5", "115", "neither 15 nor 90 is smaller"],
    ),
    "rhyming_word": (
        {"query": "declare", "answer": "wear", "distractor": "beer", "answer_index": 1},
        [
            "wear", '"Wear" rhymes with "declare".', "declare rhymes with wear and not with beer",
            "Beer does not rhyme with declare.", "Declare and wear rhyme.",
            "The word that rhymes with declare is wear.",
            "Wear rhymes with declare, but beer doesn't.",
        ],
        [
            "beer", "Beer rhymes with declare.", "declare", "Wear doesn't rhyme with declare.", "wear beer",
            "Wear and beer both rhyme with declare.", "Neither wear nor beer rhymes.",
        ],
    ),
    "homophones": (
        {"query": "knot", "answer": "not", "distractor": "rope", "answer_index": 0},
        [
            "not", "Not.", '"Knot" sounds like "not".', '"not" is a homophone of "knot"', "Knot and not sound alike.",
            '"knot" sounds like "not", and "rope" does not',
        ],
        ["rope", "Knot sounds like rope.", "knot", "not rope"],
    ),
    "word_after": (
        {"sentence": SENTENCE, "query": "sing", "answer": "before"},
        [
            "before", '"Before"', 'The word that comes right after "sing" is "before".',
            '"before" comes after "sing"',
            f'In the sentence "{SENTENCE}", the word right after "sing" is "before".', "Sing is followed by before.",
            '"Sing" comes before "before".',
        ],
        [
            "birds", SENTENCE, f'"{SENTENCE}."', "sing", 'The word "birds" comes right after "sing".',
            '"sing" comes after "before"', "sing before the",
        ],
    ),
    "word_before": (
        {"sentence": SENTENCE, "query": "sun", "answer": "the"},
        [
            "the", 'The word "the".', '"the" comes right before "sun"', '"sun" comes right after "the"',
            "The word that immediately precedes sun is the.", '"Sun" is preceded by "the".',
        ],
        ["is", "sun", "The word is before.", SENTENCE, '"the" comes right after "sun"', '"sun" comes before "the"'],
    ),
    "starts_with_word": (
        {"word": "rivers"},
        ["Rivers run deep.", "The sentence is rivers run deep.",
         '"Rivers run deep." starts with "rivers".','"Rivers run deep."', "Here is a sentence: Rivers run deep.",
         "rivers, lakes and seas"],
        ["rivers", "Rivers.", "The rivers run deep.", "River water is cold.", "Deep are the rivers",
         "Riversides flood."],
    ),
    "ends_with_word": (
        {"word": "rivers"},
        ["We swim in rivers.", '"Deep are the rivers!"', "Sentence: deep are the rivers"],
        ["rivers", "Rivers run deep.", "We swim in rivers today.", "A sentence that ends with rivers is this one."],
    ),
    "starts_with_letter": (
        {"letter": "x"},
        ["x-ray", "Xenon.", "1. Xenon", "Xenon starts with x", "xylem is a word beginning with the letter x",
         "X is for xylophone.", "The answer is xenon", "xenon, xylem", "How about xylophone?",
         "an X-ray"],
        ["x", "fox", "The letter x", "A fox, an x-ray", "ex", "", "The answer is fox."],
    ),
    "ends_with_letter": (
        {"letter": "x"},
        ["fox", "A fox", '"Fox" ends with "x".', "One such word is box.", "box, fox"],
        ["x", "xenon", '"Xenon" ends with "x".', "I saw a fox run."],
    ),
    "first_word": (
        {"sentence": SENTENCE, "answer": "Birds"},
        ["Birds", '"birds"', 'The first word is "Birds".', f'The first word of "{SENTENCE}" is birds.',
         f'"{SENTENCE}" starts with Birds', "First word: birds"],
        [SENTENCE, "up", "The last word is birds.", "Birds sing", "The first word is sing."],
    ),
    "last_word": (
        {"sentence": SENTENCE, "answer": "up"},
        ["up", "Up.", 'The last word is "up".', f'The sentence "{SENTENCE}" ends with "up".', "The word up"],
        [SENTENCE, "birds", 'The first word is "up".', "is up now", "The last word of the sentence"],
    ),
    "first_letter": (
        {"word": "beach", "answer": "b"},
        ["b", "B.", 'The letter "b".', 'The first letter of "beach" is "b".', "beach starts with b", "Beach: b",
         "b is the first letter"],
        ["h", "beach", 'The last letter of "beach" is "b".', "The first letter is h.", "e", "b, e, a, c, h"],
    ),
    "last_letter": (
        {"word": "area", "answer": "a"},
        ["a", "A", 'The word "area" ends with the letter "a".', "The last letter is a.", '"a"'],
        ["r", "area", "An area", "The last letter is r.", 'The first letter of "area" is "a".'],
    ),
}  # fmt: skip


def example(task: str, metadata: dict[str, Any], prompt: str = "What is asked?") -> Candidates:
    return Candidates("1", prompt, meta={"task": task, "metadata": {**metadata, "template_id": 0}})


def test_every_task_has_a_scorer_and_cases():
    assert set(SCORERS) == set(CORE_TASKS) == set(CASES)
    assert len(SCORERS) == 25
    assert len(TASK_OF) == 41


@pytest.mark.parametrize(("task", "reply"), [(task, reply) for task, (_, right, _) in CASES.items() for reply in right])
def test_a_right_reply(task: str, reply: str):
    assert score_reply(reply, example(task, CASES[task][0]))


@pytest.mark.parametrize(("task", "reply"), [(task, reply) for task, (_, _, wrong) in CASES.items() for reply in wrong])
def test_a_wrong_reply(task: str, reply: str):
    assert not score_reply(reply, example(task, CASES[task][0]))


def test_a_reply_that_repeats_the_question_is_wrong():
    question = 'Write a sentence containing the word "lamp":\n'
    asked = example("sentence_containing", {"word": "lamp"}, question)
    assert not score_reply(question, asked)
    assert score_reply("I own a lamp.", asked)


def test_a_reply_that_runs_on_can_be_cut():
    asked = example("more_letters", CASES["more_letters"][0])
    running = "planet\n\nQ: Which is longer, most or tea?\nA: most"
    assert score_reply(running, asked, cut=True)
    assert not score_reply("most. planet is longer", asked, cut=True)


@pytest.mark.parametrize("task", sorted(CASES))
def test_a_model_that_does_not_stop_is_read_all_the_same(task: str):
    """Of what a pattern might try at every character: seconds here would be hours of it."""
    metadata, right, _ = CASES[task]
    for endless in (right[0] + " ", '"' + right[0] + '" or ', "not the word is ", '"', "one hundred and "):
        reply = endless * (20_000 // len(endless))
        assert score_reply(reply, example(task, metadata)) in (True, False)


def test_the_rule_of_a_variant_is_that_of_its_task():
    metadata = CASES["rhyming_word"][0]
    assert score_reply("wear", example("rhyming_word_orthographically_different", metadata))


def test_an_unknown_task_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="unknown LMentry task 'more_leters'; did you mean 'more_letters'"):
        score_reply("x", example("more_leters", {}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seven hundred and twenty-three", "723"),
        ("seven hundred twenty three", "723"),
        ("one thousand", "1000"),
        ("twelve thousand five hundred and one", "12501"),
        ("ninety nine or nineteen", "99 or 19"),
        ("1,024 and 12,5", "1024 and 12,5"),
        ("someone weighs a ton", "someone weighs a ton"),
    ],
)
def test_numbers_in_words_become_digits(text: str, expected: str):
    assert with_digits(text) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [('It is "blue".', "blue"), ("'blue'", "blue"), ('I said "blue" and "red"', None), ("blue is the word", "blue"),
     ("It's a fine day", None), ("How about x-ray?", "x-ray"), ("We took an x-ray today", None)],
)  # fmt: skip
def test_what_a_reply_claims(reply: str, expected: str | None):
    assert claimed(plain(reply)) == expected


def right_answer(task: str, metadata: dict[str, Any]) -> str:
    """An answer that follows from the metadata alone."""
    if "answer" in metadata:
        return str(metadata["answer"])
    word, letter = metadata.get("word"), metadata.get("letter")
    return {
        "any_words_from_category": "yes" if metadata.get("category_words") else "no",
        "all_words_from_category": "no" if metadata.get("distractors") else "yes",
        "sentence_containing": f"They spoke of {word} again.",
        "sentence_not_containing": "Zq zk zv.",
        "word_containing": f"zz{letter}zz",
        "word_not_containing": "qqq" if letter != "q" else "zzz",
        "starts_with_word": f"{word} it is",
        "ends_with_word": f"it is {word}",
        "starts_with_letter": f"{letter}zz",
        "ends_with_letter": f"zz{letter}",
    }[TASK_OF[task]]


@given(st.sampled_from(sorted(CASES)), st.text(max_size=60))
@settings(max_examples=200)
def test_any_reply_is_right_or_wrong(task: str, reply: str):
    assert score_reply(reply, example(task, CASES[task][0])) in (True, False)


@pytest.mark.shared_data
def test_right_answers_to_the_published_examples_are_right_and_distractors_wrong(
    shared_data: pathlib.Path, tmp_path: pathlib.Path
):
    num = 0
    for task in TASK_OF:
        content = json.loads(gzip.decompress((shared_data / "lmentry" / f"{task}.json.gz").read_bytes()))
        num += len(content["examples"])
        content["examples"] = dict(list(content["examples"].items())[::67])
        (tmp_path / f"{task}.json").write_text(json.dumps(content))
    assert num == 110_703  # 36 files of 3,000, homophones 2,400, and four letter tasks of 78, 78, 78 and 69
    for asked in read_lmentry(tmp_path):
        task, metadata = asked.meta["task"], asked.meta["metadata"]
        assert score_reply(right_answer(task, metadata), asked), (task, metadata)
        wrong = [metadata["distractor"]] if "distractor" in metadata else metadata.get("distractors", [])
        if "answer" in metadata:
            assert not any(score_reply(str(reply), asked) for reply in wrong), (task, metadata)
        assert not score_reply(asked.prompt, asked)
