"""A tokenizer of one id a word, and groups of random lengths."""

from __future__ import annotations

import numpy as np

from jaxrefine.data.packing import TokenGroup

BOS, EOS, ANOTHER_EOS = 1, 2, 9


class Words:
    """Word "17" is id 17; " yes" is one id, " no" two."""

    bos_id: int | None = BOS
    eos_id = EOS
    eos_ids = (EOS, ANOTHER_EOS)
    pad_id = None
    vocab_size = 1000

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.replace(" yes", " 500").replace(" no", " 501 502").split()]

    def decode(self, ids) -> str:
        return " ".join(map(str, ids))


def random_groups(seed: int, num: int, *, candidates: int = 4, verdicts: bool = False) -> list[TokenGroup]:
    rng = np.random.default_rng(seed)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(rng.integers(10, 500, rng.integers(1, most + 1)).tolist())

    made = []
    for group_id in range(num):
        responses = tuple(ids(9) for _ in range(rng.integers(1, candidates + 1)))
        words = {"suffix": ids(3), "verdicts": ((500,), (501, 502))} if verdicts else {}
        made.append(TokenGroup(group_id, (BOS, *ids(12)), responses, **words))
    return made
