"""What depends on an example's id alone, whatever lies beside it: its random seed, its side of a split."""

from __future__ import annotations

import hashlib


def number_of(identity: str) -> int:
    """A number in 0 … 2^32 - 1 that depends on a prompt's id alone: it seeds the prompt's samples."""
    return _hash(identity) & 0xFFFFFFFF


def is_held_out(identity: str, share: float) -> bool:
    """Whether a prompt is held out: by a hash of its id, so that neither order nor other prompts matter.

    >>> 180 < sum(is_held_out(f"prompt-{number}", 0.2) for number in range(1000)) < 220
    True
    """
    return _hash(identity) < share * 2.0**64


def _hash(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")
