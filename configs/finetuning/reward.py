"""A reward model: pairwise logistic on one's own scored candidates, with a head that reads their last token.

Source:   ART's Truster, https://arxiv.org/abs/2311.07961, §3.3
Command:  jaxrefine run finetuning/reward --model DIR --data candidates.jsonl
          then: jaxrefine run judging/reward --model runs/finetuning/reward/02-train/model --candidates FILE
Cost:     an epoch of the data
Result:   a model directory in Hugging Face layout with its head beside it
"""

from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.finetuning import FinetuningJob
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig


def get_config() -> FinetuningJob:
    return FinetuningJob(
        training=Finetuning(
            objective=ObjectiveConfig(loss="pairwise_logistic", scorer="reward"),
            optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=2),
            groups_per_step=64,
        )
    )
