"""Tuna at the published settings: LLaMA-7B, Alpaca's 52K instructions, every recipe and ablation by name.

Source:   https://arxiv.org/abs/2310.13385; what the released code does otherwise: tuna/llama_7b_released
Command:  jaxrefine run tuna/llama_7b --student DIR --data alpaca_data.json --teacher-file FILE --only tuna
          DIR: LLaMA-7B in Hugging Face layout; FILE: the released teacher responses with their log-probs. The judge
          is asked over an endpoint (--judge.endpoint.base-url, .model), its key in OPENAI_API_KEY. --tasks-dir holds
          super_ni, lmentry and vicuna_qa in their original formats.
          --only takes any of RECIPES: the order of stages, mixes of 13K, 39K, 52K and 104K, lambda, amounts of data
Cost:     for eight devices of 80 GB or a v5p-16; 52,000 prompts with 5 responses of at most 512 tokens an epoch
Result:   Super-NI (0- and 2-shot), LMentry and Vicuna QA beside Alpaca's, with intervals; the paper's own numbers are
          not in the text that we hold, so none are quoted
"""

from jaxrefine.conversion.loaded import Placement
from jaxrefine.evaluation.tasks import Task
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.diversity import Diversity
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.systems.tuna import Tuna
from jaxrefine.systems.tuna_settings import JudgeConfig, Part, Phase, Proxy, Recipe
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.optimizer import OptimizerConfig

CONTEXTUAL, ALL = 13_000, 52_000
LAMBDAS = (0.0, 0.1, 1.0, 5.0, 10.0)
JUDGE = EndpointConfig(base_url="https://api.openai.com/v1", model="gpt-4", api_key_env="OPENAI_API_KEY")


def training(
    learning_rate: float, *, epochs: float = 1.0, loss: str | None = "margin_ranking", mle_weight: float = 1.0
) -> Finetuning:
    """128 prompts a step, as 16 a device on eight."""
    options: dict[str, float | str] = {"margin": 0.1, "gaps": "sum", "ties": "skip"} if loss else {}
    return Finetuning(
        objective=ObjectiveConfig(loss=loss, loss_options=options, mle_weight=mle_weight),
        optimizer=OptimizerConfig(learning_rate=learning_rate, warmup_steps=2),
        epochs=epochs,
        groups_per_step=128,
        num_microbatches=16,
        max_prompt=512,
        max_response=512,
        slots=2048,
        mle_on="original",
        checkpoints=CheckpointConfig(every_steps=100),
        save_dtype="bfloat16",
    )


def ranking(name: str, *parts: Part, mle_weight: float = 1.0) -> Phase:
    return Phase(name=name, parts=parts, training=training(1e-5, mle_weight=mle_weight))


PROBABILISTIC, LAST_39K = Part(source="probabilistic"), Part(source="probabilistic", start=CONTEXTUAL)
JUDGED = Part(source="contextual", stop=CONTEXTUAL)
PROXY_REST = Part(source="proxy", start=CONTEXTUAL)

PHASES = (
    Phase(name="sft", parts=(Part(source="instructions"),), training=training(2e-5, epochs=3, loss=None)),
    Phase(name="mul", parts=(Part(source="responses"),), training=training(2e-5, epochs=3, loss=None)),
    ranking("p", PROBABILISTIC),
    ranking("p_first_13k", Part(source="probabilistic", stop=CONTEXTUAL)),
    ranking("p_first_24k", Part(source="probabilistic", stop=24_000)),
    ranking("p_last_39k", LAST_39K),
    ranking("c", JUDGED),
    *(ranking(f"c_lambda_{value:g}", JUDGED, mle_weight=value) for value in LAMBDAS if value != 1.0),
    ranking("prm", Part(source="proxy")),
    ranking("mix_52k", JUDGED, LAST_39K),
    ranking("mix_104k", JUDGED, PROXY_REST, PROBABILISTIC),
)
RECIPES = (
    Recipe(name="alpaca", phases=("sft",)),
    Recipe(name="alpaca_mul", phases=("mul",)),
    Recipe(name="tuna_p", phases=("sft", "p")),
    Recipe(name="tuna_c", phases=("sft", "c")),
    Recipe(name="tuna_c_prm", phases=("sft", "prm")),
    Recipe(name="tuna", phases=("sft", "p", "c")),
    Recipe(name="tuna_cp_13k", phases=("sft", "c", "p_first_13k")),
    Recipe(name="tuna_cp_39k", phases=("sft", "c", "p_last_39k")),
    Recipe(name="tuna_cp_52k", phases=("sft", "c", "p")),
    Recipe(name="mix_tuna_52k", phases=("sft", "mix_52k")),
    Recipe(name="mix_tuna_104k", phases=("sft", "mix_104k")),
    Recipe(name="tuna_13k", phases=("sft", "p_first_13k", "c")),
    Recipe(name="tuna_24k", phases=("sft", "p_first_24k", "c")),
    *(
        Recipe(name=f"tuna_c_lambda_{value:g}", phases=("sft", f"c_lambda_{value:g}"))
        for value in LAMBDAS
        if value != 1.0
    ),
)


TASKS = (
    Task(
        name="super-ni 0-shot",
        kind="super_ni",
        path="super_ni",
        tasks="super_ni/test_tasks.txt",
        shots=0,
        max_prompts=100,
    ),
    Task(
        name="super-ni 2-shot",
        kind="super_ni",
        path="super_ni",
        tasks="super_ni/test_tasks.txt",
        shots=2,
        max_prompts=100,
    ),
    Task(name="lmentry", kind="lmentry", path="lmentry", max_new_tokens=64),
    Task(name="vicuna qa", kind="questions", path="vicuna_qa/question.jsonl", max_new_tokens=1024),
)


def get_config() -> Tuna:
    return Tuna(
        data_format="alpaca",
        num_prompts=ALL,
        own_sampling=SamplingConfig(num_candidates=4, max_new_tokens=512, diversity=Diversity(threshold=0.8)),
        judge=JudgeConfig(kind="contextual", endpoint=JUDGE),
        proxy=Proxy(
            stop=CONTEXTUAL,
            training=Finetuning(
                objective=ObjectiveConfig(loss="pairwise_logistic", scorer="reward", per="pair"),
                optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=2),
                groups_per_step=128,
                num_microbatches=16,
                slots=2048,
                save_dtype="bfloat16",
            ),
        ),
        phases=PHASES,
        recipes=RECIPES,
        only=("tuna_p", "tuna_c", "tuna"),
        tasks=TASKS,
        tasks_dir="data",
        compared_by=JUDGE,
        placement=Placement(mesh=MeshConfig(data=1, fsdp=-1), remat="full"),
        title="Tuna, LLaMA-7B",
    )
