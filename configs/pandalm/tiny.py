"""PandaLM whole, on word problems: two small base models of two families, a judge trained here, a search it judges.

Source:   PandaLM, https://arxiv.org/abs/2306.05087
Command:  jaxrefine run pandalm/tiny
Cost:     52 minutes were measured, without a stop, on two CPU cores beside a dozen other jobs (load 15)
Result:   agreement of the judge with its teacher (exact answers, then brevity) on pairs that it did not see; for each
          base model the champion of 12 trials (learning rate × optimiser × epoch) against the default, by the judge and
          by accuracy on 200 test problems: report.md with figures in the work directory
Expected: the judge agrees with the teacher on 0.70 [0.63, 0.77] of 174 held-out pairs (ties alone: 0.39), κ 0.53;
          champions, first in the round robin too: from the shipped model AdamW at 2e-4 after epoch 2, 65 % against the
          default's 42 % (+23.0 points [16.1, 30.2]); from the new GPT-NeoX AdamW at 2e-3 after epoch 2, 36.5 % against
          17 % (+19.5 [12.6, 26.1]). With --search.harness.own (extra "lm-eval") lm-eval counts the same: 65.0, 42.0,
          36.5 and 17.0 %, and 22.5 and 14.5 % before tuning

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
WORLD = ArithmeticConfig(min_steps=2, max_steps=2, max_start=20, max_addend=9, max_factor=3, max_value=40)
"""Two calculations a problem, with numbers so small that a new model learns to solve them in minutes."""


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
    # What they are tuned for is new to the base models: the shipped one knows bare questions alone, and the one that is
    # made here no questions but "how many now".
    asked = TaskSource(
        num=480, seed=16, world=dataclasses.replace(WORLD, ending_rate=1.0), prompt="Task: {question}\nReply:"
    )
    # As the shipped model was pre-trained (arithmetic/pretrain), on a third of the problems.
    pretraining = dataclasses.replace(
        likelihood(learning_rate=3e-3, epochs=1, groups_per_step=48),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_share=0.05, weight_decay=0.1, b2=0.98),
    )
    return PandaLM(
        bases=(
            Base(name="llama", model=SMALL),
            Base(
                name="neox",
                model=SMALL,  # its tokenizer
                attributes={
                    "model_type": "gpt_neox",
                    "hidden_size": 128,
                    "intermediate_size": 512,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 4,
                    "max_position_embeddings": 512,
                    "rotary_pct": 0.5,
                    "tie_word_embeddings": True,
                },
                pretraining=dataclasses.replace(pretraining, steps=250),
            ),
        ),
        pretraining_tasks=TaskSource(num=12_000, seed=12, world=dataclasses.replace(WORLD, ending_rate=0.0)),
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
            test=dataclasses.replace(asked, num=200, split="test", seed=15),
            sampling=SamplingConfig(num_candidates=1, temperatures=(0.0,), max_new_tokens=64),
            round_robin=True,
        ),
        title="PandaLM, tiny",
    )
