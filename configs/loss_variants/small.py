"""The loss variants of tiny on more prompts, from more seeds, for longer: for claims.

Source:   as loss_variants/tiny
Command:  jaxrefine run loss_variants/small
Cost:     a few hours on two CPU cores, minutes on a GPU
Result:   differences of about three points in greedy accuracy can be seen (the report says how large ones can)
"""

import dataclasses

from jaxrefine.config import load
from jaxrefine.evaluation.variants import LossVariants


def get_config() -> LossVariants:
    return dataclasses.replace(
        load("loss_variants/tiny"),
        num_train=1024,
        num_held_out=512,
        num_candidates=8,
        num_base_samples=16,
        num_votes=16,
        seeds=(0, 1, 2, 3, 4),
        steps=128,
        groups_per_step=16,
        slots=1024,
        title="Loss variants, small",
    )
