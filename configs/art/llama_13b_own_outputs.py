"""Ask, refine, trust at the published sizes, the Asker taught on its own answers.

Source:   https://arxiv.org/abs/2311.07961; everything else as in art/llama_13b
Command:  jaxrefine run art/llama_13b_own_outputs --solver.model PSI --asker.model SMALL
          --problems.train TRAIN --problems.test TEST
Cost:     as art/llama_13b
Result:   the paper's ablation: worse than one that read the answering model's
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    whole = config.load("art/llama_13b")
    return dataclasses.replace(
        whole,
        asker=dataclasses.replace(whole.asker, reads="own"),
        title="Ask, refine, trust: LLaMA-2 13B taught on its own answers",
    )
