"""Ask, refine, trust, tiny, with an Asker of a stronger model's first layers.

Source:   https://arxiv.org/abs/2311.07961, an ablation; everything else as in art/tiny
Command:  jaxrefine run art/tiny_strong_asker
Cost:     as art/tiny
Result:   the table of art/tiny; the paper's MetaMath ablation: as good, and refines fewer answers
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    tiny = config.load("art/tiny")
    return dataclasses.replace(
        tiny,
        asker=dataclasses.replace(tiny.asker, model="arithmetic-teacher"),
        title="Ask, refine, trust, tiny: a strong Asker",
    )
