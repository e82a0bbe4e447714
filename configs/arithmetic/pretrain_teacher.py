"""Pre-trains the stronger model that ships as a teacher: the recipe of the small one, for longer on more problems.

    jaxrefine run arithmetic/pretrain_teacher

The result is jaxrefine/shipped/arithmetic-teacher.

Expected: 95 % of the test problems solved greedily.
Cost: about 20 minutes on two CPU cores.
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.pretraining import PretrainingConfig


def get_config() -> PretrainingConfig:
    small = config.load("arithmetic/pretrain")
    return dataclasses.replace(
        small,
        name="arithmetic-teacher",
        num_problems=80_000,
        train=dataclasses.replace(small.train, steps=1000),
    )
