"""The judge of pandalm/tiny without one of its four responders, measured on pairs with that one and without it.

Source:   PandaLM, https://arxiv.org/abs/2306.05087: a judge meets models of which it learned nothing
Command:  jaxrefine run pandalm/unseen
Cost:     as much as pandalm/tiny takes to come to its judge
Result:   two tables of agreement with the teacher on held-out problems: pairs of the responders that the judge learned
          from, and pairs with the tuned GPT-NeoX. One seed, by reply: 0.71 [0.60, 0.80] of 89 pairs with it, 0.49
          [0.39, 0.60] of the 85 others; the judge of pandalm/tiny, which learned from all four, 0.74 and 0.66 of the
          same pairs. So a responder that it has not seen costs nothing that can be told; half as many different records
          (3,758) seem to cost it on the others
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.pandalm import PandaLM


def get_config() -> PandaLM:
    tiny = config.load("pandalm/tiny")
    return dataclasses.replace(
        tiny,
        judge=dataclasses.replace(tiny.judge, unseen=("neox tuned",)),
        search=None,
        title="PandaLM, tiny: a model that the judge has not seen",
    )
