r"""Fine-tuning for math, whole: solutions, samples, evaluators, cluster re-ranking, solutions again, and the control.

Source:   https://arxiv.org/abs/2310.10047, Tables 3 to 7; its figures stand beside, marked as published
Command:  jaxrefine run math/tiny
          Tasks trained together (Eq. 11-13): jaxrefine run math/tiny --only contrast joint_margin joint_xent
Cost:     under ten minutes on two CPU cores with nothing else to do (8.6 minutes of processor time)
Result:   tables on the terminal; report.md, metrics.json and figures in the work directory. 96 problems: intervals are
          ten points wide to either side. Style matters (greedy: terse 14 %, worded 41, both 28), though 80 steps only
          harm a model that was trained on 32,000 such problems (52). The evaluators order a problem's right solutions
          above its wrong ones in 67 and 69 % of the pairs; weighted re-ranking is 1 and 3 points above the vote, the
          best single score 6 and 7 below. Learning to judge, so small a model forgets how to solve: in sequence 16 and
          12 %, the control 39
"""

import dataclasses

from jaxrefine.data.arithmetic import ArithmeticConfig
from jaxrefine.data.solution_sources import SolutionSource
from jaxrefine.evaluation.selection import SelectionSettings
from jaxrefine.judging.local import Rows
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.selection.examples import ExampleChoice
from jaxrefine.systems.math_phases import (
    SEQUENCE_CONTRAST,
    SOLUTIONS,
    VERDICT_CROSS_ENTROPY,
    VERDICT_MARGIN,
    evaluating,
    solving,
    together,
    with_likelihood,
)
from jaxrefine.systems.math_settings import Phase
from jaxrefine.systems.math_solving import MathSolving
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig

WORLD = ArithmeticConfig(max_steps=3)
BOTH = ("terse", "worded")
TRAINING = Finetuning(
    objective=SOLUTIONS,
    optimizer=OptimizerConfig(learning_rate=6e-4, warmup_share=0.05, weight_decay=0.1, b2=0.98),
    steps=80,
    groups_per_step=16,
    max_prompt=80,
    max_response=48,
    slots=512,
)
WORDS, VERDICTS, AGAIN = 12, 52, 48
EXAMPLES = ExampleChoice(num=6)


def solving_for(steps: int) -> Finetuning:
    return dataclasses.replace(TRAINING, steps=steps)


def evaluating_for(steps: int) -> Finetuning:
    optimizer = dataclasses.replace(TRAINING.optimizer, learning_rate=1e-3)
    return dataclasses.replace(TRAINING, steps=steps, groups_per_step=12, optimizer=optimizer)


def evaluator(name: str, objective: ObjectiveConfig, steps: int, start: str) -> Phase:
    return evaluating(
        name, objective, of="both", training=evaluating_for(steps), start=start, examples=EXAMPLES,
        scores=("after_margin",),
    )  # fmt: skip


SEQUENCE = (
    solving("terse", "terse", training=TRAINING),
    solving("worded", "worded", training=TRAINING),
    solving("both", *BOTH, training=TRAINING),
    # The model has never seen the words, of which one is twice as long as the other: at first S is 1 for every solution
    # and a margin of its logarithm has no gradient. A few steps of cross-entropy teach the words.
    evaluating(
        "words", VERDICT_CROSS_ENTROPY, of="both", training=evaluating_for(WORDS), examples=EXAMPLES, re_ranks=False
    ),
    evaluator("margin", VERDICT_MARGIN, VERDICTS, "words"),
    evaluator("xent", VERDICT_CROSS_ENTROPY, WORDS + VERDICTS, "both"),
    solving("after_margin", *BOTH, training=solving_for(AGAIN), start="margin"),
    solving("after_xent", *BOTH, training=solving_for(AGAIN), start="xent"),
    solving("control", *BOTH, training=solving_for(WORDS + VERDICTS + AGAIN), start="both"),
)  # fmt: skip
TOGETHER = tuple(
    together(
        name, objective, *BOTH, of="both", training=evaluating_for(WORDS + VERDICTS), start=start, examples=EXAMPLES
    )
    for name, objective, start in (
        ("contrast", SEQUENCE_CONTRAST, "both"),
        ("joint_margin", with_likelihood(VERDICT_MARGIN, 0.1), "words"),
        ("joint_xent", with_likelihood(VERDICT_CROSS_ENTROPY, 0.1), "both"),
    )
)  # fmt: skip


def get_config() -> MathSolving:
    return MathSolving(
        title="Fine-tuning for math, tiny",
        sources=(
            SolutionSource(name="terse", style="terse", num=1280, seed=1, world=WORLD),
            SolutionSource(name="worded", style="lines", num=1280, seed=1, world=WORLD),
        ),
        test=SolutionSource(name="test", split="test", num=96, seed=1, world=WORLD),
        phases=(*SEQUENCE, *TOGETHER),
        only=tuple(phase.name for phase in SEQUENCE),
        sampling=SamplingConfig(num_candidates=16, temperatures=(0.6,), top_p=0.95, max_new_tokens=48),
        training_sampling=SamplingConfig(num_candidates=8, temperatures=(1.0,), max_new_tokens=48, seed=1),
        num_sampled=512,
        style="marker",
        grading="keys",
        rows=Rows(max_prompt=80, max_response=48, slots=512, batch_tokens=4096),
        selection=SelectionSettings(largest=3, top=6),
    )
