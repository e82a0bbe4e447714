"""Ask, refine, trust at the published sizes with a 7B Asker.

Source:   https://arxiv.org/abs/2311.07961; everything else as in art/llama_13b
Command:  jaxrefine run art/llama_7b --solver.model PSI --asker.model SMALL
          --problems.train TRAIN --problems.test TEST
Cost:     as art/llama_13b
Result:   beside the published row: Asker 61.33
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    larger = config.load("art/llama_13b")
    return dataclasses.replace(
        larger,
        asker=dataclasses.replace(larger.asker, model="LLaMA-2-7B"),
        title="Ask, refine, trust: LLaMA-2 70B with a 7B Asker on GSM8K",
    )
