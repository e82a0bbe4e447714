"""Routers on public judgements of many models' answers, against the best model on average; a β sweep.

Source:   https://arxiv.org/abs/2311.08692 (the method; its own 47,986 queries and rewards are not public)
Command:  jaxrefine run zooter/real --data DIR
          DIR: the directory with alpaca_eval (10 models, GPT-4's preferences), mt_bench (18 models, GPT-4's ratings),
          flask (15 models, words shared with the reference answer) and routellm with mmlu (GPT-4 and Mixtral, right or
          wrong). One's own queries: --queries NAME=FILE, where a line of FILE is
          {"id": "1", "prompt": "2+3?", "models": ["small", "large"], "rewards": [0.1, 0.9], "tags": ["sum"]}.
Cost:     40 minutes were measured on two CPU cores beside a dozen other jobs, most of it the small encoder's
Result:   the table on the terminal, and in the work directory report.md, metrics.json and figures: mean reward with
          intervals, MTR, uplift and the share of the way to the oracle, on held-out queries. Difference from the best
          on average [95 %], words at β = 0.9 / words from hard labels / the encoder at β = 0.3:
          AlpacaEval  0 / -0.004 [-0.013, 0.006] / 0 (one model is best nearly everywhere: 0.971, oracle 0.997)
          MT-Bench    -0.009 [-0.067, 0.048] / 0.104 [-0.048, 0.365] / -1.283 [-2.212, -0.442] (53 queries; of 9.189)
          FLASK       0.028 [0.017, 0.040] / 0.031 [0.019, 0.042] / 0.009 [0.003, 0.016] (of 0.348, oracle 0.544)
          RouteLLM    0.002 [-0.002, 0.005] / 0.001 [-0.003, 0.004] / 0.002 [-0.001, 0.006] (of 0.817, oracle 0.871)
          So only FLASK, whose rewards are without noise, lets a router gain, and from own rewards rather than tags (at
          β = 0.3 words gain 0.001); the encoder from nothing needs more than MT-Bench's 53 queries. These β were not
          chosen beforehand: --validation-share 0.25 keeps training queries apart to choose by
"""

from jaxrefine.data.tags import LabelEnhancement
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.zooter import Recipe, Zooter
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig

# Preferences lie between 0 and 1: at temperature 1 their softmax hardly tells models apart.
SWEEP = tuple(
    Recipe(
        name=f"words, β = {beta:g}", reads="features", sweep=f"{beta:g}",
        target=LabelEnhancement(beta=beta, temperature=0.2, min_queries=3),
    )
    for beta in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
)  # fmt: skip


def get_config() -> Zooter:
    return Zooter(
        recipes=(
            *SWEEP,
            Recipe(name="words, hard labels", reads="features", sweep="hard labels",
                   target=LabelEnhancement(form="hard", beta=1.0)),
            Recipe(name="words, raw rewards smoothed", reads="features",
                   target=LabelEnhancement(form="raw", beta=0.3, temperature=0.2, min_queries=3)),
            Recipe(name="encoder, β = 0.3",
                   target=LabelEnhancement(beta=0.3, temperature=0.2, min_queries=3)),
        ),
        encoder=EncoderConfig(
            vocab_size=2048, width=64, num_layers=2, num_heads=4, head_width=16, hidden_width=128, max_positions=256,
        ),
        training=Finetuning(
            objective=ObjectiveConfig(loss="reward_distillation", scorer="router", num_models=10),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_share=0.1, weight_decay=0.01),
            epochs=2.0,
            groups_per_step=32,
            max_prompt=96,
            slots=512,
        ),
        num_folds=3,
    )  # fmt: skip
