"""Ask, refine, trust at the published sizes on GSM8K: LLaMA-2 70B answers, 13B asks, 13B is the Truster.

Source:   https://arxiv.org/abs/2311.07961, Table 2. Sizes, temperatures and k are the paper's; learning rates, epochs
          and lengths are not in the text that we hold and are ours
Command:  jaxrefine run art/llama_13b --solver.model PSI --asker.model SMALL --problems.train TRAIN --problems.test TEST
          PSI, SMALL: LLaMA-2 70B and 13B in Hugging Face layout; TRAIN, TEST: GSM8K's Socratic files. A tuned PSI needs
          no examples: --solver.shots 0, and --answer-style auto, where it states answers in a way of its own; first
          answers by decomposition: --solver.writes sub_questions; the decision as a threshold: --settings.decision
          threshold; prompts of one's own: --templates FILE
Cost:     for a pod: 140 GB of weights answer 5 x 7,473 training and 4 x 1,319 test problems, 13B learns three times
Result:   beside the published rows: no refinement 59, Asker 62.74, Asker and Truster 64.24
"""

from jaxrefine.conversion.loaded import Placement
from jaxrefine.judging.local import Rows
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.systems.art import Art
from jaxrefine.systems.art_settings import AskerConfig, ProblemsConfig, SolverConfig, TrusterConfig
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig

LIKELIHOOD = ObjectiveConfig(mle_weight=1.0, mle_normalize="token")
PAIRS = ObjectiveConfig(loss="pairwise_logistic", scorer="reward")


def learn(objective: ObjectiveConfig, epochs: float, learning_rate: float) -> Finetuning:
    return Finetuning(
        objective=objective,
        optimizer=OptimizerConfig(learning_rate=learning_rate, warmup_share=0.03),
        epochs=epochs,
        groups_per_step=128,
        num_microbatches=8,
        max_prompt=1024,
        max_response=512,
        slots=4096,
        checkpoints=CheckpointConfig(every_steps=100),
        save_dtype="bfloat16",
    )


def get_config() -> Art:
    return Art(
        # The last four training problems are worked examples in ψ's prompts.
        problems=ProblemsConfig(format="gsm8k", num_train=7469, num_solver=4, num_test=1319),
        solver=SolverConfig(
            model="LLaMA-2-70B",
            shots=4,
            samples=SamplingConfig(num_candidates=1, temperatures=(0.0, 0.3, 0.4, 0.7, 0.8)),
        ),
        asker=AskerConfig(
            model="LLaMA-2-13B",
            task=learn(LIKELIHOOD, 3, 2e-5),
            training=learn(LIKELIHOOD, 1, 1e-5),
            max_new_tokens=256,
        ),
        truster=TrusterConfig(training=learn(PAIRS, 1, 1e-5), from_asker_task=False, model="LLaMA-2-13B"),
        max_new_tokens=512,
        rows=Rows(max_prompt=2048, max_response=512, slots=4096, batch_tokens=32768),
        placement=Placement(mesh=MeshConfig(data=1, fsdp=-1), remat="full"),
        title="Ask, refine, trust: LLaMA-2 70B with 13B on GSM8K",
    )
