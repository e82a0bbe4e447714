"""Ask, refine, trust with an Asker as large as the model that answers.

Source:   https://arxiv.org/abs/2311.07961; everything else as in art/llama_13b
Command:  jaxrefine run art/llama_70b --solver.model PSI --asker.model SMALL
          --problems.train TRAIN --problems.test TEST
Cost:     as art/llama_13b
Result:   beside the published row: Asker 63.60
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    smaller = config.load("art/llama_13b")
    return dataclasses.replace(
        smaller,
        asker=dataclasses.replace(smaller.asker, model="LLaMA-2-70B"),
        title="Ask, refine, trust: LLaMA-2 70B asks itself on GSM8K",
    )
