"""Direct preference optimisation on one's own scored candidates: the better of two, against the model it begins with.

Source:   Rafailov et al. 2023, DPO, https://arxiv.org/abs/2305.18290, Eq. 7 and appendix B (AdamW in place of RMSprop)
Command:  jaxrefine run finetuning/preference --model DIR --data candidates.jsonl
          Another loss is another value of ObjectiveConfig: copy this file, and run it by its path.
Cost:     an epoch of the data, and one forward pass over it for the reference's scores, which are kept
Result:   a model directory in Hugging Face layout
"""

from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.finetuning import FinetuningJob
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig


def get_config() -> FinetuningJob:
    return FinetuningJob(
        training=Finetuning(
            objective=ObjectiveConfig(loss="dpo", loss_options={"beta": 0.1}),
            optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=150),
            groups_per_step=64,
        )
    )
