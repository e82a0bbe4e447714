"""Pre-trains the small model that ships with the library, on its own world of word problems.

    jaxrefine run arithmetic/pretrain

Makes the tokenizer, trains, exports a Hugging Face directory in bf16, and writes its card with the accuracy on the test
split. The result is jaxrefine/shipped/arithmetic-small.

Expected: 45 % of the test problems solved greedily, 75 % where any of 16 samples counts.
Cost: about 8 minutes on two CPU cores.
"""

from jaxrefine.models.config import TransformerConfig
from jaxrefine.systems.pretraining import PretrainingConfig
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.loop import TrainConfig
from jaxrefine.training.optimizer import OptimizerConfig


def get_config() -> PretrainingConfig:
    return PretrainingConfig(
        name="arithmetic-small",
        num_problems=32_000,
        model=TransformerConfig(
            vocab_size=1,  # the tokenizer's
            width=128,
            num_layers=4,
            num_heads=4,
            num_kv_heads=2,
            head_width=32,
            hidden_width=344,
            max_positions=512,
            tie_embeddings=True,
        ),
        train=TrainConfig(
            steps=330,
            optimizer=OptimizerConfig(
                learning_rate=3e-3, warmup_share=0.05, weight_decay=0.1, b2=0.98, final_share=0.0
            ),
            checkpoints=CheckpointConfig(every_steps=250, keep=1),
            log_every_steps=20,
        ),
    )
