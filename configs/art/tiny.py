"""Ask, refine, trust with two small models of ours on word problems: a demonstration.

Source:   https://arxiv.org/abs/2311.07961
Command:  jaxrefine run art/tiny
Cost:     six minutes on two CPU cores with two other jobs beside it
Result:   a table, metrics.json and report.md with a figure in the work directory. On 200 problems, mean of seeds 0, 1
          and 2 (each): no refinement 36.8 % (38.0, 34.5, 38.0), vote of three samples 33.5 (32.5, 32.5, 35.5), always
          refine 60.0 (65.5, 59.0, 55.5), Asker 57.8 (57.5, 59.5, 56.5; it refines 85 %), Asker and Truster 51.0 (52.0,
          52.0, 49.0), oracle 64.5. One refinement beats the vote by 24.3 points [17.6, 31.4]: the small Asker's
          sub-questions help much. Its decision does not pay (Asker less always -2.2 [-9.0, 2.0]): at all seeds the best
          threshold refines nearly everything. Nor does the Truster (-6.8 [-11.1, -3.0]), which learns from some 65
          problems, puts the right answer first in 59 % and reverts 55 % of the refined; self-selection is worse still.
          Intervals are over problems and seeds. Another run: --seed 1; runs and ablations side by side: art/comparison

The model that answers is the shipped teacher, good at problems of two to four steps and here given four to six: it
leaves steps out. It is taught to answer with sub-questions, never such problems by themselves. Asker and Truster are
the first two of the four layers of the shipped small model.
"""

from jaxrefine.data.arithmetic import ArithmeticConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.art import Art
from jaxrefine.systems.art_settings import AskerConfig, ProblemsConfig, SolverConfig, TrusterConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig

LIKELIHOOD = ObjectiveConfig(mle_weight=1.0, mle_normalize="token")
PAIRS = ObjectiveConfig(loss="pairwise_logistic", scorer="reward")


def learn(objective: ObjectiveConfig, steps: int, learning_rate: float) -> Finetuning:
    return Finetuning(
        objective=objective,
        optimizer=OptimizerConfig(learning_rate=learning_rate, warmup_share=0.05, weight_decay=0.1, b2=0.98),
        steps=steps,
        groups_per_step=8,
        max_prompt=336,
        max_response=160,
        slots=512,
    )


def get_config() -> Art:
    return Art(
        problems=ProblemsConfig(
            num_train=300, num_solver=300, num_test=200, world=ArithmeticConfig(min_steps=4, max_steps=6)
        ),
        solver=SolverConfig(model="arithmetic-teacher", learns="refining", finetuning=learn(LIKELIHOOD, 100, 5e-4)),
        asker=AskerConfig(
            layers=2, task=learn(LIKELIHOOD, 50, 1e-3), training=learn(LIKELIHOOD, 240, 1e-3), max_new_tokens=128
        ),
        truster=TrusterConfig(training=learn(PAIRS, 24, 3e-4)),
        max_new_tokens=112,
        title="Ask, refine, trust, tiny",
    )
