r"""PandaLM's judge at its published settings: from training records, or from pairs and a teacher.

Source:   PandaLM, https://arxiv.org/abs/2306.05087: AdamW 2e-5, cosine, warm-up 0.03, 2 epochs, bf16, 1024 tokens, 128
          records a step (2 × 8 accumulated × 8 devices)
Command:  jaxrefine run pandalm/judge --judge.start LLAMA_7B --judge.records RECORDS.json
          RECORDS: an array (or lines) of {"inputs": {"instruction", "input", "response1", "response2"}, "outputs":
          {"evaluation_result", "evaluation_reason", "reference_response"}}, as PandaLM has it. Ablations:
          pandalm/judge_verdict_only, pandalm/judge_lora; less data: a shorter file
Cost:     300,000 records twice in 4,680 steps; at 350 tokens a record LLaMA-7B takes about 10^19 FLOPs, three hours on
          eight A100s at 40 % of their peak
Expected: on PandaLM's test set (pandalm/agreement --judge …) an accuracy near 0.59 in the paper, 0.67 by the authors'
          released verdicts
"""

from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.tasks import TaskSource
from jaxrefine.judging.distilled import JudgeForm
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.systems.pandalm import PandaLM
from jaxrefine.systems.pandalm_judge import JudgeConfig
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig


def training() -> Finetuning:
    return Finetuning(
        objective=ObjectiveConfig(loss=None, mle_weight=1.0, mle_normalize="token"),
        optimizer=OptimizerConfig(learning_rate=2e-5, schedule="cosine", warmup_share=0.03),
        epochs=2,
        groups_per_step=128,
        num_microbatches=8,
        max_prompt=768,  # with the response 1024 in all
        max_response=256,
        slots=2048,
        checkpoints=CheckpointConfig(every_steps=200),
        save_dtype="bfloat16",
    )


def get_config() -> PandaLM:
    return PandaLM(
        bases=(),
        judge=JudgeConfig(
            records="records.json",
            num_held_out=500,
            tasks=TaskSource(format="alpaca", file="alpaca_data.json"),
            tuning_tasks=TaskSource(format="alpaca", file="alpaca_data.json"),
            form=JudgeForm(max_tokens=256),
            training=training(),
        ),
        placement=Placement(mesh=MeshConfig(data=1, fsdp=-1), remat="full"),
        title="PandaLM's judge",
    )
