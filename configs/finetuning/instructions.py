"""Supervised fine-tuning of one's own model on one's own instructions, with the settings of Alpaca.

Source:   https://github.com/tatsu-lab/stanford_alpaca (AdamW 2e-5, cosine, 3 % warm-up, 3 epochs, 128 a step)
Command:  jaxrefine run finetuning/instructions --model DIR --data alpaca_data.json
          Low-rank adapters: --training.tuning.parameters adapters --training.optimizer.learning-rate 2e-4
Cost:     three epochs of the data
Result:   a model directory in Hugging Face layout
"""

from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.finetuning import FinetuningJob
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig


def get_config() -> FinetuningJob:
    return FinetuningJob(
        data_format="alpaca",
        training=Finetuning(
            objective=ObjectiveConfig(mle_weight=1.0),
            optimizer=OptimizerConfig(learning_rate=2e-5, warmup_share=0.03),
            epochs=3,
            groups_per_step=128,
        ),
    )
