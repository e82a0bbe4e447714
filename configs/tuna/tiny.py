"""Tuna whole, on the arithmetic world: supervised start, probabilistic ranking, contextual ranking on its own samples.

Source:   https://arxiv.org/abs/2310.13385
Command:  jaxrefine run tuna/tiny
          Further recipes of the paper: --only tuna_c tuna_cp tuna_c_prm alpaca_mul
Cost:     eight minutes on two CPU cores
Result:   a table of the given model, the supervised start, Tuna_p and Tuna with intervals; report.md with figures. The
          order is the paper's, but no difference is larger than its interval. Higher rates harm: with few words in
          which right and wrong differ, a margin on mean log-probs of 0.1 a rank asks for much

The teacher is the shipped model that was trained longer, the judge the known answer plus a length axis. The published
settings are in tuna/llama_7b; here rates are twice as high and sets are smaller.
"""

import dataclasses

from jaxrefine.evaluation.tasks import Task
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.diversity import Diversity
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.tuna import Tuna
from jaxrefine.systems.tuna_settings import Part, Phase, Proxy, Recipe
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig

PROMPTS = 384


def training(learning_rate: float, objective: ObjectiveConfig) -> Finetuning:
    return Finetuning(
        objective=objective,
        optimizer=OptimizerConfig(learning_rate=learning_rate, warmup_steps=2),
        groups_per_step=8,
        max_prompt=128,
        max_response=96,
        slots=512,
        mle_on="original",
    )


# Eq. 4-6 with the margin growing with the distance in rank; equal scores are not told apart.
RANKING = ObjectiveConfig(
    loss="margin_ranking", loss_options={"margin": 0.1, "gaps": "sum", "ties": "skip"}, mle_weight=1.0
)
LIKELIHOOD = ObjectiveConfig(mle_weight=1.0)
REWARD = ObjectiveConfig(loss="pairwise_logistic", scorer="reward")


def get_config() -> Tuna:
    return Tuna(
        num_prompts=PROMPTS,
        # The world has few ways to say a thing: without this most of the teacher's four would be one text.
        teacher_sampling=SamplingConfig(num_candidates=4, diversity=Diversity(threshold=1.0, drop_duplicates=True)),
        own_sampling=SamplingConfig(num_candidates=4, diversity=Diversity(threshold=0.8)),
        proxy=Proxy(stop=PROMPTS // 2, training=dataclasses.replace(training(2e-4, REWARD), epochs=2)),
        phases=(
            Phase(name="sft", parts=(Part(source="instructions"),), training=training(4e-5, LIKELIHOOD)),
            Phase(name="p", parts=(Part(source="probabilistic"),), training=training(2e-5, RANKING)),
            Phase(name="c", parts=(Part(source="contextual"),), training=training(2e-5, RANKING)),
            Phase(name="c_prm", parts=(Part(source="proxy"),), training=training(2e-5, RANKING)),
            Phase(name="mul", parts=(Part(source="responses"),), training=training(4e-5, LIKELIHOOD)),
        ),
        recipes=(
            Recipe(name="sft", phases=("sft",)),
            Recipe(name="tuna_p", phases=("sft", "p")),
            Recipe(name="tuna_c", phases=("sft", "c")),
            Recipe(name="tuna", phases=("sft", "p", "c")),
            Recipe(name="tuna_cp", phases=("sft", "c", "p")),
            Recipe(name="tuna_c_prm", phases=("sft", "c_prm")),
            Recipe(name="alpaca_mul", phases=("mul",)),
        ),
        only=("tuna_p", "tuna"),
        seeds=(0, 1, 2),
        tasks=(Task(name="word problems", max_prompts=300),),
        title="Tuna, tiny",
    )
