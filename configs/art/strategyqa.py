"""Ask, refine, trust at the published sizes on StrategyQA, refining with sub-questions and facts.

Source:   https://arxiv.org/abs/2311.07961; everything else as in art/llama_13b
Command:  jaxrefine run art/strategyqa --solver.model PSI --asker.model SMALL
          --problems.train TRAIN --problems.test TEST
Cost:     as art/llama_13b
Result:   beside the published rows: 75.15 without, 78.38 with refinement. Not run here. The path was, with models that
          know word problems alone: art/tiny --problems.format strategyqa --with-facts, on 200 short questions, knows as
          much as chance (of 40 questions 27.5 % without, where many answers are neither yes nor no, 50.0 % with facts)
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.art import Art
from jaxrefine.systems.art_settings import ProblemsConfig


def get_config() -> Art:
    gsm8k = config.load("art/llama_13b")
    return dataclasses.replace(
        gsm8k,
        # One file for both: its first fifth is the test part.
        problems=ProblemsConfig(format="strategyqa", num_train=1828, num_solver=4, num_test=458),
        with_facts=True,
        title="Ask, refine, trust: LLaMA-2 70B with 13B on StrategyQA",
    )
