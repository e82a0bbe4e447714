r"""PandaLM's judge by low-rank adapters: the ablation beside full fine-tuning.

Source:   PandaLM, https://arxiv.org/abs/2306.05087 (full fine-tuning against LoRA); rank, alpha and rate are ours
Command:  jaxrefine run pandalm/judge_lora --judge.start LLAMA_7B --judge.records RECORDS.json
          A base of four bits: --judge.training.tuning.base nf4
Cost:     two thirds of pandalm/judge's FLOPs; the optimiser holds moments of the adapters alone. Not run here
Expected: in the paper adapters lose to full fine-tuning on every base model
"""

import dataclasses

from jaxrefine import config
from jaxrefine.models.lora import LoraConfig
from jaxrefine.scoring.adapted import TuningConfig
from jaxrefine.systems.pandalm import PandaLM


def get_config() -> PandaLM:
    base: PandaLM = config.load("pandalm/judge")
    training = dataclasses.replace(
        base.judge.training,
        tuning=TuningConfig(parameters="adapters", lora=LoraConfig(rank=16, alpha=32.0)),
        optimizer=dataclasses.replace(base.judge.training.optimizer, learning_rate=2e-4),
    )
    return dataclasses.replace(
        base, judge=dataclasses.replace(base.judge, training=training), title="PandaLM's judge, by adapters"
    )
