"""Ask, refine, trust, tiny, with a small model that asks, decides and refines.

Source:   https://arxiv.org/abs/2311.07961, an ablation; everything else as in art/tiny
Command:  jaxrefine run art/tiny_all_in_one
Cost:     as art/tiny
Result:   the table of art/tiny; the paper's ablation: worse than refining with the large model. So here, on 200
          problems and one seed: Asker 14.5 %, always 2.0 %, 43.0 points [35.7, 50.3] below art/tiny's Asker on that
          seed: it cannot solve these problems. The Truster, choosing between its answers and ψ's, saves 11.5 points
          [7.0, 16.6]
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    tiny = config.load("art/tiny")
    # It writes questions, the decision and a solution: longer texts.
    training = dataclasses.replace(tiny.asker.training, max_response=256)
    return dataclasses.replace(
        tiny,
        asker=dataclasses.replace(tiny.asker, writes="all", training=training, max_new_tokens=224),
        title="Ask, refine, trust, tiny: all in one",
    )
