"""Ask, refine, trust, tiny, with an Asker that learned to judge its own answers.

Source:   https://arxiv.org/abs/2311.07961, an ablation; everything else as in art/tiny
Command:  jaxrefine run art/tiny_own_outputs
Cost:     as art/tiny
Result:   the table of art/tiny; the paper's ablation: worse than one that read the answering model's. On 200 problems
          and one seed: 65 of its own 1,500 answers are right, so it learns to refine everything and tells nothing apart
          (area under ROC 0.47). Where refining nearly always helps that is no loss: Asker and always 63.5 %, the Asker
          +6.0 points [1.0, 11.1] above art/tiny's on that seed; Asker and Truster 52.5 %
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
