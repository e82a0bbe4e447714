r"""Tasks in sequence: generator, evaluator, generator again, and the control; LLaMA-7B with the paper's settings.

Source:   https://arxiv.org/abs/2310.10047, Table 7 (there: PaLM 2-L). The control, as many more steps of SSFT, is ours
Command:  jaxrefine run math/sequential --model LLAMA, and the paths of math/solution_sources
          One sequence: --only after_margin; the control alone: --only control
Cost:     math/reranking, and three more trainings with 32,000 solutions to be sampled for each. Not run here: what was
          checked is that every step traces at these sizes
Expected: there, one to two points above the start, within the intervals of 500 problems. The third phase takes 200
          steps, after which the paper's settled; rate and batch are ours
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.math_phases import solving
from jaxrefine.systems.math_solving import MathSolving

AGAIN, EVALUATING = 200, 172  # the evaluator's one epoch of 11,000 problems, 64 a step


def get_config() -> MathSolving:
    base: MathSolving = config.load("math/reranking")
    both, margin, xent = base.phases
    again = dataclasses.replace(both.training, steps=AGAIN)
    longer = dataclasses.replace(both.training, steps=EVALUATING + AGAIN)
    sources = both.solutions
    return dataclasses.replace(
        base,
        title="Fine-tuning for math: tasks in sequence",
        phases=(
            both,
            *(dataclasses.replace(phase, training=dataclasses.replace(phase.training, steps=EVALUATING))
              for phase in (margin, xent)),
            solving("after_margin", *sources, training=again, start="margin"),
            solving("after_xent", *sources, training=again, start="xent"),
            solving("control", *sources, training=longer, start="both"),
        ),
    )  # fmt: skip
