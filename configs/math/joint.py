r"""Tasks together: a contrast of samples with the likelihood of solutions (Eq. 11-13); LLaMA-7B.

Source:   https://arxiv.org/abs/2310.10047, Eq. 11 (sequences), 12 (verdict margin), 13 (verdict cross-entropy)
Command:  jaxrefine run math/joint --model LLAMA, and the paths of math/solution_sources
          One objective: --only contrast
Cost:     as math/reranking with three trainings, and 32,000 solutions to be sampled for each. Not run here: what was
          checked is that every step traces at these sizes
Expected: no published numbers are at hand; the paper prefers tasks in sequence (math/sequential, whose control serves
          here, too). The margin, alpha 1 to 3, rate and batch are ours
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.math_phases import (
    SEQUENCE_CONTRAST,
    VERDICT_CROSS_ENTROPY,
    VERDICT_MARGIN,
    together,
    with_likelihood,
)
from jaxrefine.systems.math_solving import MathSolving

ALPHA = 0.1  # of a sum over some 200 tokens, beside verdicts of a few nats


def get_config() -> MathSolving:
    base: MathSolving = config.load("math/sequential")
    by_name = {phase.name: phase for phase in base.phases}
    both, control, training = by_name["both"], by_name["control"], by_name["margin"].training
    return dataclasses.replace(
        base,
        title="Fine-tuning for math: tasks together",
        phases=(
            both,
            *(
                together(name, objective, *both.solutions, of="both", training=training)
                for name, objective in (
                    ("contrast", SEQUENCE_CONTRAST),
                    ("joint_margin", with_likelihood(VERDICT_MARGIN, ALPHA)),
                    ("joint_xent", with_likelihood(VERDICT_CROSS_ENTROPY, ALPHA)),
                )
            ),
            dataclasses.replace(control, training=dataclasses.replace(control.training, steps=training.steps)),
        ),
    )
