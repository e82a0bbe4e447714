"""Ask, refine, trust, tiny, with an Asker and Truster as large as the model that answers.

Source:   https://arxiv.org/abs/2311.07961, an ablation; everything else as in art/tiny
Command:  jaxrefine run art/tiny_large_asker
Cost:     as art/tiny
Result:   the table of art/tiny; the paper's sizes: a larger Asker decides better. On 200 problems and one seed: Asker
          61.5 % (it refines 74 %), Asker and Truster 55.0 %, always 65.5 %; against art/tiny on that seed Asker +4.0
          points [-1.5, 9.5], Asker and Truster +3.0 [-2.5, 8.5]: a better Asker cannot be told from chance
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    tiny = config.load("art/tiny")
    return dataclasses.replace(
        tiny,
        asker=dataclasses.replace(tiny.asker, layers=None),
        title="Ask, refine, trust, tiny: a large Asker",
    )
