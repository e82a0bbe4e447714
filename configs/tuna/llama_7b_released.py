"""Tuna as its released code trains: gaps averaged, the likelihood of all candidates, a lower rate after a judge.

Source:   https://github.com/microsoft/LMOps/tree/main/tuna, where it differs from arXiv:2310.13385: hinges averaged
          for each gap in rank and then summed, MLE on all N candidates, rate 1e-5 (probabilistic) and 1e-6
          (contextual), duplicates dropped from the ranking, no weight decay, cosine, two warm-up steps, length 512
Command:  jaxrefine run tuna/llama_7b_released --student DIR --data alpaca_data.json --teacher-file FILE
Cost:     as tuna/llama_7b
Result:   as tuna/llama_7b
"""

import dataclasses
import pathlib

from jaxrefine.config import load
from jaxrefine.systems.tuna import Tuna
from jaxrefine.systems.tuna_settings import Phase


def as_released(phase: Phase) -> Phase:
    """A ranking phase in the released form; the others as they are."""
    objective = phase.training.objective
    if objective.loss is None:
        return phase
    contextual = any(part.source != "probabilistic" for part in phase.parts)
    training = dataclasses.replace(
        phase.training,
        objective=dataclasses.replace(objective, loss_options={**objective.loss_options, "gaps": "mean"}),
        optimizer=dataclasses.replace(phase.training.optimizer, learning_rate=1e-6 if contextual else 1e-5),
        mle_on="all",
    )
    return dataclasses.replace(phase, training=training)


def get_config() -> Tuna:
    published = load(pathlib.Path(__file__).with_name("llama_7b.py"))
    diversity = dataclasses.replace(published.own_sampling.diversity, drop_duplicates=True)
    return dataclasses.replace(
        published,
        phases=tuple(map(as_released, published.phases)),
        own_sampling=dataclasses.replace(published.own_sampling, diversity=diversity),
        title="Tuna, LLaMA-7B, as released",
    )
