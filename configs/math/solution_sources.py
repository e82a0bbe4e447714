r"""Which solutions teach best: MATH's human ones, PRM800K's, or both; LLaMA-7B with the paper's settings.

Source:   https://arxiv.org/abs/2310.10047, Table 3 (there: PaLM 2); epochs are chosen on validation problems
Command:  jaxrefine run math/solution_sources --model LLAMA --sources.0.paths MATH
          --sources.1.paths phase1_train.jsonl phase2_train.jsonl --test.paths math_splits/test.jsonl
          One row of the table: --only prm800k. MATH is its directory with all 12,500 problems (or its .jsonl files)
Cost:     a pod or 8 GPUs of 80 GB; 32,000 solutions to be sampled for each of four rows. Not run here: what was checked
          is that every step traces at these sizes
Expected: a few points between the rows, within the intervals of 500 problems. Learning rate and batch are ours
"""

from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.solution_sources import SolutionSource
from jaxrefine.evaluation.selection import SelectionSettings
from jaxrefine.judging.local import Rows
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.systems.math_phases import SOLUTIONS, solving
from jaxrefine.systems.math_solving import MathSolving
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig

TRAINING = Finetuning(
    objective=SOLUTIONS,
    optimizer=OptimizerConfig(learning_rate=1e-5, warmup_share=0.03),
    epochs=2,
    groups_per_step=64,
    num_microbatches=8,
    max_prompt=768,
    max_response=1024,
    slots=2048,
    checkpoints=CheckpointConfig(every_steps=100, keep=1),
    save_dtype="bfloat16",
)


def get_config() -> MathSolving:
    return MathSolving(
        title="Fine-tuning for math: solution sources",
        model="",
        sources=(SolutionSource(name="math", kind="math"), SolutionSource(name="prm800k", kind="prm800k")),
        test=SolutionSource(name="test", kind="prm800k problems"),
        num_validation=1000,
        phases=(
            solving("math", "math", training=TRAINING, best_epoch=True),
            solving("prm800k", "prm800k", training=TRAINING, best_epoch=True),
            solving("both", "math", "prm800k", training=TRAINING, best_epoch=True),
        ),
        few_shot=4,
        sampling=SamplingConfig(num_candidates=64, temperatures=(0.6,), top_p=0.95, max_new_tokens=1024),
        rows=Rows(max_prompt=768, max_response=1024),
        placement=Placement(mesh=MeshConfig(data=1, fsdp=-1), remat="full"),
        selection=SelectionSettings(largest=8, top=8),
    )
