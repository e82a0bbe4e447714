"""PandaLM whole with small models of the paper's five forms and its whole grid, on word problems.

Source:   PandaLM, https://arxiv.org/abs/2306.05087
Command:  jaxrefine run pandalm/small
Cost:     an accelerator, or a night on two CPU cores: 5 models are made, 80 settings of each are tried in 16 runs
Result:   as of pandalm/tiny, with LLaMA, BLOOM, GPT-2 (Cerebras-GPT), OPT and GPT-NeoX (Pythia); rates are a hundred
          times the paper's, for the models are ten thousand times smaller. Not run at this size; all stages with all
          five forms ran at less (12 steps a new base, 4 settings of each in 2 runs, 6 judged prompts) in 25 minutes of
          two busy cores: --bases.0.pretraining.steps 12 … --pretraining-tasks.num 600 --judge.tasks.num 40
          --judge.num-held-out 8 --judge.tuning-tasks.num 32 --judge.tuning.epochs 1 --judge.training.steps 6
          --search.tasks.num 64 --search.grid.epochs 1 2 --search.grid.axes.0.values 2e-3
          --search.grid.axes.2.values cosine --search.num-blocks 2 --search.validation.num 6 --search.test.num 10
"""

import dataclasses

from jaxrefine.config import load
from jaxrefine.data.tasks import TaskSource
from jaxrefine.systems.pandalm import Base, PandaLM
from jaxrefine.training.grid import Axis, Grid

SIZES: dict[str, int | float | str | bool] = {
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hidden_size": 128,
    "max_position_embeddings": 512,
}
FORMS: dict[str, dict[str, int | float | str | bool]] = {
    "llama": {"model_type": "llama", **SIZES, "intermediate_size": 344},
    "bloom": {"model_type": "bloom", "hidden_size": 128, "n_layer": 4, "n_head": 4},
    "gpt2": {"model_type": "gpt2", "n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 512},
    "opt": {"model_type": "opt", **SIZES, "ffn_dim": 512},
    "neox": {"model_type": "gpt_neox", **SIZES, "intermediate_size": 512},
}


def get_config() -> PandaLM:
    tiny = load("pandalm/tiny")
    tokenizer, pretraining = tiny.bases[0].model, tiny.bases[1].pretraining
    pretraining = dataclasses.replace(pretraining, steps=None)
    rates = Axis(path="optimizer.learning_rate", values=(2e-4, 1e-3, 2e-3, 2e-2))
    names = Axis(path="optimizer.name", values=("sgd", "adamw"))
    schedules = Axis(path="optimizer.schedule", values=("cosine", "linear"))
    tasks = dataclasses.replace(tiny.search.tasks, num=2048)
    return dataclasses.replace(
        tiny,
        bases=tuple(
            Base(name=name, model=tokenizer, attributes=attributes, pretraining=pretraining)
            for name, attributes in FORMS.items()
        ),
        pretraining_tasks=TaskSource(num=24_000, seed=12, world=tiny.pretraining_tasks.world),
        judge=dataclasses.replace(
            tiny.judge,
            tasks=dataclasses.replace(tiny.judge.tasks, num=4500),
            num_held_out=500,
            tuning_tasks=dataclasses.replace(tiny.judge.tuning_tasks, num=2048),
            training=dataclasses.replace(tiny.judge.training, epochs=1, steps=None, groups_per_step=32),
        ),
        search=dataclasses.replace(
            tiny.search,
            tasks=tasks,
            grid=Grid(epochs=(1, 2, 3, 4, 5), axes=(rates, names, schedules)),
            num_blocks=4,
            validation=dataclasses.replace(tiny.search.validation, num=170),
            test=dataclasses.replace(tiny.search.test, num=500),
            round_robin=False,
        ),
        title="PandaLM, small",
    )
