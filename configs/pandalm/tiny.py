"""PandaLM whole, on word problems: two small base models of two families, a judge trained here, a search it judges.

Source:   PandaLM, https://arxiv.org/abs/2306.05087
Command:  jaxrefine run pandalm/tiny
Cost:     about ten minutes on two CPU cores
Result:   agreement of the judge with its teacher (exact answers, then brevity) on pairs that it did not see; for each
          base model the champion of 12 trials (learning rate × optimiser × epoch) against the default, by the judge and
          by accuracy on test problems: report.md with figures in the work directory
Expected: the judge agrees with the teacher on 0.81 of 180 held-out pairs (ties alone would be 0.70), κ 0.50; from the
          shipped model the search finds AdamW at 2e-4 after epoch 2, 49 % of the test problems against the default's
          19 %; the new GPT-NeoX is too young for the settings to differ (5 % with all of them)

The default is Alpaca's learning rate, which is far too low for models as small as these.
"""

import dataclasses

from jaxrefine.data.arithmetic.generator import ArithmeticConfig
from jaxrefine.data.tasks import TaskSource
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.judging.distilled import JudgeForm
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.pandalm import Base, PandaLM
from jaxrefine.systems.pandalm_judge import JudgeConfig
from jaxrefine.systems.pandalm_search import SearchConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.grid import Axis, Grid
from jaxrefine.training.optimizer import OptimizerConfig

SMALL = str(SHIPPED)
TEACHER = str(SHIPPED.with_name("arithmetic-teacher"))
WORLD = ArithmeticConfig(min_steps=2, max_steps=2)
"""Two calculations a problem."""


def likelihood(*, learning_rate: float, epochs: float, groups_per_step: int, max_prompt: int = 128) -> Finetuning:
    """Plain next-token learning; no checkpoints, for a run takes seconds."""
    return Finetuning(
        objective=ObjectiveConfig(loss=None, mle_weight=1.0, mle_normalize="token"),
        optimizer=OptimizerConfig(learning_rate=learning_rate, warmup_share=0.03),
        epochs=epochs,
        groups_per_step=groups_per_step,
        max_prompt=max_prompt,
        max_response=64,
        slots=512,
        checkpoints=None,
        log_every_steps=20,
    )


def get_config() -> PandaLM:
    brief = TaskSource(num=384, seed=11, world=WORLD, brief=True)
    # The base models know bare questions alone: what they are tuned for is to answer instructions.
    asked = TaskSource(num=320, seed=16, world=WORLD, prompt="Task:\n{question}\nReply:\n")
    pretraining = likelihood(learning_rate=3e-3, epochs=1, groups_per_step=48)
    return PandaLM(
        bases=(
            Base(name="llama", model=SMALL),
            Base(
                name="neox",
                model=SMALL,  # its tokenizer
                attributes={
                    "model_type": "gpt_neox",
                    "hidden_size": 96,
                    "intermediate_size": 384,
                    "num_hidden_layers": 3,
                    "num_attention_heads": 4,
                    "max_position_embeddings": 512,
                    "rotary_pct": 0.5,
                },
                pretraining=dataclasses.replace(pretraining, steps=110),
            ),
        ),
        pretraining_tasks=TaskSource(num=5280, seed=12, world=WORLD),
        judge=JudgeConfig(
            tasks=TaskSource(num=680, seed=13, world=WORLD),
            num_held_out=30,
            pairs_per_task=6,
            reasons="differences",
            tuning=likelihood(learning_rate=1e-3, epochs=2, groups_per_step=16),
            tuning_tasks=brief,
            sampling=SamplingConfig(num_candidates=1, temperatures=(0.0, 0.8), max_new_tokens=64),
            start=TEACHER,
            # The reference first, then how far each answer is from it: a model of this size cannot see it at once.
            form=JudgeForm(
                says="reference, reason, verdict",
                user="1:\n{first}\n2:\n{second}\n\n{instruction}\n",
                max_tokens=96,
            ),
            training=dataclasses.replace(
                likelihood(learning_rate=2e-3, epochs=1, groups_per_step=12, max_prompt=256), steps=400
            ),
        ),
        search=SearchConfig(
            tasks=asked,
            default=likelihood(learning_rate=2e-5, epochs=2, groups_per_step=16),
            grid=Grid(
                epochs=(1, 2),
                axes=(
                    Axis(path="optimizer.learning_rate", values=(2e-5, 2e-4, 2e-3)),
                    Axis(path="optimizer.name", values=("sgd", "adamw")),
                ),
            ),
            num_blocks=2,
            validation=dataclasses.replace(asked, num=40, split="validation", seed=14),
            test=dataclasses.replace(asked, num=160, split="test", seed=15),
            sampling=SamplingConfig(num_candidates=1, temperatures=(0.0,), max_new_tokens=64),
            round_robin=True,
        ),
        title="PandaLM, tiny",
    )
