"""Tags of queries, by asking a language model, local or behind an endpoint, what each of them is about.

The reply is untrusted text: anything but a JSON list of short texts is no tag, and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxrefine.artefacts.atomic import parse_json
from jaxrefine.data.examples import Routed
from jaxrefine.judging.prompts import Asking, block, fence, hand_over
from jaxrefine.sampling.responder import Failure, Reply, Responder

ASK = """Below is a query that somebody sends to an assistant. Do not answer it. Say in a few tags what an answer has \
to be good at: the kind of task, the field of knowledge, the form that is asked for.

{query}

Reply with one JSON list of at most {most} strings and nothing else, each of one to three lower-case English words, \
the most important first. An example of the form: ["translation", "medicine", "short answer"]
"""
_LONGEST = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggingConfig:
    """How tags are asked for."""

    asking: Asking = dataclasses.field(default_factory=lambda: Asking(max_tokens=96))
    most: int = 5
    """Tags of a query; further ones are dropped."""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"TaggingConfig.most = {self.most} must be at least 1")


@dataclasses.dataclass(frozen=True)
class Tagged:
    """Queries with the tags that a model gave."""

    queries: tuple[Routed, ...]
    """In the order given; untagged where there was no usable reply."""
    failed: dict[str, str]
    """The reason, by the query's id."""


def tag_queries(queries: Sequence[Routed], responder: Responder, config: TaggingConfig | None = None) -> Tagged:
    """Asks for the tags of every query; tags that it has are replaced.

    Args:
        queries: each is asked for on its own.
        responder: a model.
        config: number of tags, length of replies.
    """
    config = TaggingConfig() if config is None else config
    requests = []
    for query in queries:
        text = block("Query", query.prompt, fence(query.prompt))
        requests.append(config.asking.request("", [ASK.format(query=text, most=config.most)]))
    found: dict[int, tuple[str, ...]] = {}
    failed: dict[str, str] = {}

    def read(index: int, result: Reply | Failure) -> None:
        if isinstance(result, Failure):
            failed[queries[index].id] = result.reason
            return
        try:
            found[index] = parse_tags(result.text)[: config.most]
        except ValueError as error:
            failed[queries[index].id] = str(error)

    hand_over(responder.respond, requests, read)
    tagged = [dataclasses.replace(query, tags=found.get(index, ())) for index, query in enumerate(queries)]
    order = [query.id for query in queries if query.id in failed]
    return Tagged(tuple(tagged), {id: failed[id] for id in order})


def parse_tags(text: str) -> tuple[str, ...]:
    """Tags of a reply: lower case, single spaces, each once.

    Raises:
        ValueError: anything but a JSON list of texts, an empty list, a tag of no letters or of more than 40.

    >>> parse_tags('["Math", "word  problem", "math"]')
    ('math', 'word problem')
    """
    value = parse_json(text.strip(), where="tags")
    if not isinstance(value, list) or not value or not all(isinstance(tag, str) for tag in value):
        raise ValueError(f"tags: a JSON list of strings is wanted, got {text.strip()[:60]!r}")
    tags = tuple(dict.fromkeys(" ".join(tag.lower().split()) for tag in value))
    for tag in tags:
        if not tag or len(tag) > _LONGEST:
            raise ValueError(f"tags: a tag has 1 to {_LONGEST} characters, got {tag[:60]!r}")
    return tags
