"""Tags of queries that have none, by a linear classifier of hashed words, learned from those that have some."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxrefine.data.examples import Routed
from jaxrefine.selection.features import FeatureConfig, FeatureRouter, fit_features


@dataclasses.dataclass(frozen=True, eq=False)
class Tagger:
    """What share of a query's tags each tag is; those with the largest shares are given."""

    tags: tuple[str, ...]
    router: FeatureRouter
    count: int
    """Tags that a query gets: as many as the training queries have on average."""

    def __call__(self, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        """The tags of each query, the most probable first."""
        if not prompts:
            return []
        shares = self.router.probabilities(prompts)
        order = np.argsort(-shares, axis=1, kind="stable")[:, : self.count]
        return [tuple(self.tags[place] for place in row) for row in order.tolist()]


def fit_tagger(queries: Sequence[Routed], config: FeatureConfig, *, min_queries: int = 2) -> Tagger:
    """Learns tags from the queries that have some.

    Args:
        queries: those without tags are not read.
        config: of the features.
        min_queries: a tag that fewer queries carry is not learned.

    Raises:
        ValueError: no tag is carried by so many.

    >>> known = [Routed(str(n), f"{word} {n}", ("m",), (1.0,), (word,)) for n in range(4) for word in ("sum", "poem")]
    >>> fit_tagger(known, FeatureConfig(num_features=64, penalties=(1e-2,)))(["a poem, please"])
    [('poem',)]
    """
    counts = Counter(tag for query in queries for tag in dict.fromkeys(query.tags))
    tags = tuple(tag for tag, count in counts.most_common() if count >= min_queries)
    if not tags:
        raise ValueError(f"no tag is carried by {min_queries} of {len(queries)} queries: none can be learned")
    places = {tag: place for place, tag in enumerate(tags)}
    known = [query for query in queries if any(tag in places for tag in query.tags)]
    targets = np.zeros((len(known), len(tags)))
    for row, query in zip(targets, known, strict=True):
        row[[places[tag] for tag in dict.fromkeys(query.tags) if tag in places]] = 1.0
    count = max(1, round(float(targets.sum(1).mean())))
    targets /= targets.sum(1, keepdims=True)
    return Tagger(tags, fit_features([query.prompt for query in known], targets, config), count)


def with_tags(queries: Sequence[Routed], tagger: Tagger) -> list[Routed]:
    """The queries, with tags of the tagger where they have none."""
    bare = [place for place, query in enumerate(queries) if not query.tags]
    found = list(queries)
    for place, tags in zip(bare, tagger([queries[place].prompt for place in bare]), strict=True):
        found[place] = dataclasses.replace(queries[place], tags=tags)
    return found
