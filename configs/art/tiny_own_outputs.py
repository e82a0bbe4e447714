"""Ask, refine, trust, tiny, with an Asker that learned to judge its own answers.

Source:   https://arxiv.org/abs/2311.07961, an ablation; everything else as in art/tiny
Command:  jaxrefine run art/tiny_own_outputs
Cost:     as art/tiny
Result:   the table of art/tiny; the paper's ablation: worse than one that read the answering model's. Once, on 200
          problems and one seed: 65 of its own 1,500 answers are right, so it refines everything: Asker 63.5 %, Asker
          and Truster 52.5 %, always 63.5 % (art/tiny: 57.5 %, 52.0 %, 65.5 %)
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    tiny = config.load("art/tiny")
    return dataclasses.replace(
        tiny,
        asker=dataclasses.replace(tiny.asker, reads="own"),
        title="Ask, refine, trust, tiny: own outputs",
    )
