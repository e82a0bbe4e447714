"""The loss variants on GSM8K problems with four real models' solutions each, right or wrong.

Source:   Cobbe et al. 2021, arXiv 2110.14168; the file is example_model_solutions.jsonl of its repository
Command:  jaxrefine run loss_variants/gsm8k_solutions --candidates example_model_solutions.jsonl.gz --model DIR
Cost:     with the shipped small model an hour or two on two CPU cores for all variants and seeds;
          --only reward_logistic --seeds 0 --steps 8 --num-train 128 --num-held-out 32 takes a tenth of that
Result:   how well each variant learns to tell right solutions from wrong ones. The shipped small model knows only its
          own word problems, so with it ranking is near chance and the accuracies near nothing: give a model that reads
          GSM8K, with more --lengths.response, for more than a check that everything runs.
"""

import dataclasses

from jaxrefine.config import load
from jaxrefine.evaluation.variant_data import Lengths
from jaxrefine.evaluation.variants import LossVariants


def get_config() -> LossVariants:
    return dataclasses.replace(
        load("loss_variants/tiny"),
        candidates="example_model_solutions.jsonl.gz",
        candidates_format="gsm8k_solutions",
        lengths=Lengths(prompt=240, response=240),
        num_train=400,
        num_held_out=96,
        num_votes=4,
        slots=1280,
        title="Loss variants on GSM8K's model solutions",
    )
