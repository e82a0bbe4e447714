"""Ask, refine, trust at the published sizes, one 13B model asking, deciding and refining.

Source:   https://arxiv.org/abs/2311.07961; everything else as in art/llama_13b
Command:  jaxrefine run art/llama_13b_all_in_one --solver.model PSI --asker.model SMALL
          --problems.train TRAIN --problems.test TEST
Cost:     as art/llama_13b
Result:   the paper's ablation: worse than refining with the large model
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art


def get_config() -> Art:
    whole = config.load("art/llama_13b")
    return dataclasses.replace(
        whole,
        asker=dataclasses.replace(whole.asker, writes="all", max_new_tokens=768),
        title="Ask, refine, trust: LLaMA-2 13B does everything",
    )
