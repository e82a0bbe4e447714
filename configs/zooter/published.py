"""A router at the paper's settings: mDeBERTa-v3-base, tag-based label enhancement on softmaxed rewards, β = 0.3.

Source:   https://arxiv.org/abs/2311.08692: 47,986 queries, six models of 13B, rewards of a 7B reward model
Command:  jaxrefine run zooter/published --queries FILE --start DIR
          FILE: a line is {"id": "1", "prompt": "…", "models": ["vicuna", …], "rewards": [0.1, …], "tags": ["math"]},
          the rewards of each model's answer; DIR: microsoft/mdeberta-v3-base, downloaded
Cost:     86 million parameters in the layers: under an hour on one accelerator for the paper's data; every further
          recipe of the sweep as much again. One router alone: --recipes takes their list
Expected: the paper's MTR, against its six models: 1.94 at β = 0.3; hard labels 2.31, β = 0 2.06, β = 1 2.34
"""

from jaxrefine.data.tags import LabelEnhancement
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.zooter import Recipe, Zooter
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig

SWEEP = tuple(
    Recipe(name=f"router, β = {beta:g}", target=LabelEnhancement(beta=beta), sweep=f"{beta:g}")
    for beta in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
)


def get_config() -> Zooter:
    return Zooter(
        recipes=(
            *SWEEP,
            Recipe(name="router, hard labels", target=LabelEnhancement(form="hard", beta=1.0), sweep="hard labels"),
            Recipe(name="router, raw rewards smoothed", target=LabelEnhancement(form="raw", beta=0.3)),
        ),
        start="mdeberta-v3-base",
        training=Finetuning(
            # As is usual for distillation, KL(target ‖ router); the paper prints the other direction: "reverse".
            objective=ObjectiveConfig(
                loss="reward_distillation", loss_options={"direction": "forward"}, scorer="router", num_models=6
            ),
            optimizer=OptimizerConfig(learning_rate=1e-5, weight_decay=5e-7),
            epochs=5.0,
            groups_per_step=64,
            max_prompt=512,
            slots=2048,
        ),
        ngram=6,
    )
