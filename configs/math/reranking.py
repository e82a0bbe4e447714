r"""Cluster re-ranking with margin and cross-entropy evaluators, every strategy; LLaMA-7B with the paper's settings.

Source:   https://arxiv.org/abs/2310.10047, Table 4 and the table of strategies (there: PaLM 2); N = 64, K = 8, ten
          examples a problem
Command:  jaxrefine run math/reranking --model LLAMA, and the paths of math/solution_sources
          One evaluator: --only margin
Cost:     math/solution_sources' last row, 64 samples of each of 11,000 training problems, and two trainings on ten
          samples a problem. Not run here: what was checked is that every step traces at these sizes
Expected: there, weighted re-ranking is above the vote by five points for PaLM 2-L. Margin, rate and batch are ours
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.math_phases import VERDICT_CROSS_ENTROPY, VERDICT_MARGIN, evaluating
from jaxrefine.systems.math_solving import MathSolving


def get_config() -> MathSolving:
    base: MathSolving = config.load("math/solution_sources")
    both = base.phases[-1]
    training = dataclasses.replace(both.training, epochs=1, keep_epochs=False, slots=4096)
    return dataclasses.replace(
        base,
        title="Fine-tuning for math: cluster re-ranking",
        phases=(
            both,
            evaluating("margin", VERDICT_MARGIN, of="both", training=training),
            evaluating("xent", VERDICT_CROSS_ENTROPY, of="both", training=training),
        ),
        measure_given=False,
    )
