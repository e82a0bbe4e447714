"""Ask, refine, trust with a stronger small model as Asker.

Source:   https://arxiv.org/abs/2311.07961; everything else as in art/llama_13b
Command:  jaxrefine run art/metamath_13b --solver.model PSI --asker.model SMALL
          --problems.train TRAIN --problems.test TEST
Cost:     as art/llama_13b
Result:   beside the published row: Asker 64.06, refining a quarter fewer answers
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    plain = config.load("art/llama_13b")
    # MetaMath has learned the task already.
    return dataclasses.replace(
        plain,
        asker=dataclasses.replace(plain.asker, model="MetaMath-13B", task=None),
        title="Ask, refine, trust: LLaMA-2 70B with MetaMath 13B on GSM8K",
    )
