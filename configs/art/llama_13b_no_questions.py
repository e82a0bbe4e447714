"""Ask, refine, trust at the published sizes, the Asker deciding without sub-questions.

Source:   https://arxiv.org/abs/2311.07961; everything else as in art/llama_13b
Command:  jaxrefine run art/llama_13b_no_questions --solver.model PSI --asker.model SMALL
          --problems.train TRAIN --problems.test TEST
Cost:     as art/llama_13b
Result:   the paper's ablation: such an Asker never refines
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    whole = config.load("art/llama_13b")
    return dataclasses.replace(
        whole,
        asker=dataclasses.replace(whole.asker, writes="decision"),
        sub_questions="data",
        title="Ask, refine, trust: LLaMA-2 13B decides without questions",
    )
