r"""The loss variants on one's own prompts with scored candidates, and one's own model.

Source:   as loss_variants/tiny
Command:  jaxrefine run loss_variants/own --model DIR --candidates FILE
          DIR: any LLaMA in Hugging Face layout, with its tokenizer. FILE: a JSON object a line,
          {"id": "1", "prompt": "2+3?\n", "answer": "5", "candidates": [{"text": "#### 5", "score": 1}, …]}
Cost:     depends on both; --steps, --num-train and --num-held-out bound it
Result:   every metric where prompts have answers (solutions end in a line "#### 5"); ranking alone where they have
          none. Prompts are held out by a hash of their ids. Higher scores are better; variants that need right / wrong
          labels are left out where scores are graded, and the report says so.
"""

import dataclasses

from jaxrefine.config import load
from jaxrefine.evaluation.variant_data import Lengths
from jaxrefine.evaluation.variants import LossVariants


def get_config() -> LossVariants:
    tiny = load("loss_variants/tiny")
    # Graded scores have a best candidate, but no threshold above which one is right.
    variants = tuple(dataclasses.replace(row, mle_on="best") if row.mle_on == "right" else row for row in tiny.variants)
    return dataclasses.replace(
        tiny,
        variants=variants,
        candidates="candidates.jsonl",
        lengths=Lengths(prompt=256, response=256),
        num_train=1024,
        num_held_out=256,
        steps=64,
        slots=1024,
        title="Loss variants on my own data",
    )
