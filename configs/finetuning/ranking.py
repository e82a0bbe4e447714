"""Tuna's margin ranking, with the likelihood of the best one, on one's own scored candidates.

Source:   Tuna, https://arxiv.org/abs/2310.13385, Eq. 4-6
Command:  jaxrefine run finetuning/ranking --model DIR --data candidates.jsonl
          Another loss is another value of ObjectiveConfig: copy this file, and run it by its path.
Cost:     an epoch of the data
Result:   a model directory in Hugging Face layout, with its head where there is one
"""

from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.finetuning import FinetuningJob
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig


def get_config() -> FinetuningJob:
    return FinetuningJob(
        training=Finetuning(
            objective=ObjectiveConfig(
                loss="margin_ranking", loss_options={"margin": 0.1, "gaps": "sum", "ties": "skip"}, mle_weight=1.0
            ),
            optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=2),
            groups_per_step=128,
        )
    )
