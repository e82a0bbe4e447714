"""Untagged queries get as many tags as others have; tagged ones keep theirs; rare tags are not learned."""

from __future__ import annotations

import pytest

from jaxrefine.data.examples import Routed
from jaxrefine.selection.features import FeatureConfig
from jaxrefine.selection.tagging import fit_tagger, with_tags

SMALL = FeatureConfig(num_features=128, penalties=(1e-3,))


def query(id: int, prompt: str, *tags: str) -> Routed:
    return Routed(str(id), prompt, ("m",), (1.0,), tags)


KNOWN = [
    query(n, f"{verb} the {thing} {n}", verb, thing)
    for n in range(3)
    for verb in ("paint", "count")
    for thing in ("tree", "house")
]


def test_untagged_queries_get_the_tags_that_their_words_tell() -> None:
    tagger = fit_tagger([*KNOWN, query(99, "paint me", "seldom")], SMALL)
    assert "seldom" not in tagger.tags
    assert tagger.count == 2
    bare = query(7, "count the tree 9")
    found = with_tags([KNOWN[0], bare], tagger)
    assert found[0] == KNOWN[0]
    assert set(found[1].tags) == {"count", "tree"}
    assert with_tags([KNOWN[0]], tagger) == [KNOWN[0]]


def test_no_common_tag_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tag is carried by 2 of 1 queries"):
        fit_tagger([query(1, "one", "a")], SMALL)
