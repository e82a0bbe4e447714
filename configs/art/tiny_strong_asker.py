"""Ask, refine, trust, tiny, with an Asker of a stronger model's first layers.

Source:   https://arxiv.org/abs/2311.07961, an ablation; everything else as in art/tiny
Command:  jaxrefine run art/tiny_strong_asker
Cost:     as art/tiny
Result:   the table of art/tiny; the paper's MetaMath ablation: as good, and refines fewer answers. Not so here, where
          two layers are cut out of either model: on 200 problems and one seed Asker 59.5 % (art/tiny on that seed
          57.5 %; +2.0 points [-4.0, 8.0]), refining 92.5 % (72.5 %); its questions are worse: always 60.0 % against
          65.5 % (-5.5 [-10.6, -0.5])
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
