r"""Any evaluator on any generator: two models, each as both, all four pairs; LLaMA-7B and a larger one.

Source:   https://arxiv.org/abs/2310.10047, Table 6 (there: PaLM 2-S* and PaLM 2-L)
Command:  jaxrefine run math/transfer --model LLAMA_7B --more-models.larger LLAMA_13B, and the paths of
          math/solution_sources. Solutions and scores that are there already need no run: judging/verdict scores a file
          of anybody's solutions, and math/selection takes GENERATOR:EVALUATOR=FILE
Cost:     math/reranking with one evaluator for each model, and every solution scored twice. Not run here: what was
          checked is that every step traces at these sizes
Expected: there, the larger evaluator is better on both generators, by ten points and more. Margin and rate are ours
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.math_phases import VERDICT_MARGIN, evaluating, solving
from jaxrefine.systems.math_solving import MathSolving


def get_config() -> MathSolving:
    base: MathSolving = config.load("math/reranking")
    both, margin, _ = base.phases
    generators = [
        solving(name, *both.solutions, training=both.training, start=start, best_epoch=True)
        for name, start in (("small", "given"), ("large", "larger"))
    ]
    evaluators = [
        evaluating(
            f"{one.name}_margin", VERDICT_MARGIN, of=one.name, training=margin.training,
            scores=tuple(other.name for other in generators if other is not one),
        )
        for one in generators
    ]  # fmt: skip
    return dataclasses.replace(
        base,
        title="Fine-tuning for math: evaluators and generators",
        more_models={"larger": ""},
        phases=(*generators, *evaluators),
    )
