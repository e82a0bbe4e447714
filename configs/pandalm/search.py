r"""PandaLM's search: 80 settings for each of five base models of about 7 billion parameters, judged by a trained judge.

Source:   PandaLM, https://arxiv.org/abs/2306.05087: epoch 1 … 5 × rate 2e-6, 1e-5, 2e-5, 2e-4 × SGD, AdamW × cosine,
          linear; four blocks of 20; the default is Alpaca's (AdamW 2e-5, cosine, 3 epochs)
Command:  jaxrefine run pandalm/search --judge.model JUDGE --search.tasks.file alpaca_data.json
          --search.validation.file testset-inference-v1.json --bases.0.model LLAMA_7B --bases.1.model BLOOM_7B
          --bases.2.model CEREBRAS_GPT_6.7B --bases.3.model OPT_6.7B --bases.4.model PYTHIA_6.9B
          Your own data: any file in Alpaca's form; your own base: one Base in a copy of this file
          Over a cluster: --search.cluster.by ray --search.cluster.gpus 8 (extra "ray"; a run of the grid is a task, and
          the work directory is on a disk that all machines share). Beside the wins, lm-eval's tasks (extra "lm-eval"):
          --search.harness.tasks arc_challenge hellaswag
Cost:     a base model: 16 runs of 5 epochs and the default's 3, 83 epochs of 52,000 prompts; at 130 tokens a prompt
          about 2 × 10^19 FLOPs, six hours on eight A100s at 40 % of their peak; 158 comparisons of 170 prompts, at most
          26,860 questions to the judge
Expected: the published winners: LLaMA AdamW 1e-5 linear epoch 4, BLOOM SGD 2e-5 cosine 5, Cerebras SGD 2e-5 linear, OPT
          AdamW 2e-5 linear 5, Pythia SGD 1e-5 cosine 5; by people 82, 79, 88, 68 and 82 wins of 170 against Alpaca's
"""

from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.tasks import TaskSource
from jaxrefine.judging.distilled import JudgeForm
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.systems.pandalm import Base, PandaLM
from jaxrefine.systems.pandalm_judge import JudgeConfig
from jaxrefine.systems.pandalm_search import SearchConfig
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.grid import Axis, Grid
from jaxrefine.training.optimizer import OptimizerConfig

BASES = ("llama-7b", "bloom-7b1", "cerebras-gpt-6.7b", "opt-6.7b", "pythia-6.9b")


def alpaca() -> Finetuning:
    return Finetuning(
        objective=ObjectiveConfig(loss=None, mle_weight=1.0, mle_normalize="token"),
        optimizer=OptimizerConfig(learning_rate=2e-5, schedule="cosine", warmup_share=0.03),
        epochs=3,
        groups_per_step=128,
        num_microbatches=8,
        max_prompt=512,
        max_response=512,
        slots=2048,
        checkpoints=CheckpointConfig(every_steps=200),
        save_dtype="bfloat16",
    )


def get_config() -> PandaLM:
    tasks = TaskSource(format="alpaca", file="alpaca_data.json")
    return PandaLM(
        bases=tuple(Base(name=name, model=name) for name in BASES),
        judge=JudgeConfig(
            model="judge", tasks=tasks, tuning_tasks=tasks, form=JudgeForm(max_tokens=256), training=alpaca()
        ),
        search=SearchConfig(
            tasks=tasks,
            default=alpaca(),
            grid=Grid(
                epochs=(1, 2, 3, 4, 5),
                axes=(
                    Axis(path="optimizer.learning_rate", values=(2e-6, 1e-5, 2e-5, 2e-4)),
                    Axis(path="optimizer.name", values=("sgd", "adamw")),
                    Axis(path="optimizer.schedule", values=("cosine", "linear")),
                ),
            ),
            num_blocks=4,
            validation=TaskSource(format="pandalm", file="testset-inference-v1.json"),
            sampling=SamplingConfig(num_candidates=1, temperatures=(0.0,), max_new_tokens=512),
        ),
        placement=Placement(mesh=MeshConfig(data=1, fsdp=-1), remat="full"),
        title="PandaLM's search over 80 settings",
    )
