"""Tunix's side of fine-tuning: ``PeftTrainer`` without adapters, its own LLaMA, loader, loss and loop.

tunix 0.1.7's LLaMA rotates with base 10⁶ whatever its config says; the workload's model therefore has that base.
It has no mixed precision: with bfloat16 its parameters and optimiser state are bfloat16 too, the other sides' are not.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from benchmarks.peers.worker import Case, Turns, serve, tokens_of


def main(case: Case, turns: Turns) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from tunix.models.llama3 import model as llama
    from tunix.models.llama3.params import create_model_from_safe_tensors
    from tunix.sft import utils as tunix_utils
    from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput

    turns.imported()
    written = json.loads((pathlib.Path(case["model"]) / "config.json").read_text())
    config = llama.ModelConfig(
        num_layers=written["num_hidden_layers"],
        vocab_size=written["vocab_size"],
        embed_dim=written["hidden_size"],
        hidden_dim=written["intermediate_size"],
        num_heads=written["num_attention_heads"],
        head_dim=written["head_dim"],
        num_kv_heads=written["num_key_value_heads"],
        rope_theta=1_000_000,
        norm_eps=written["rms_norm_eps"],
        remat_config=llama.RematConfig.NONE if case["remat"] == "none" else llama.RematConfig.DECODER,
    )
    model = create_model_from_safe_tensors(case["model"], config, dtype=jnp.dtype(case["dtype"]))
    optimizer = optax.chain(
        optax.clip_by_global_norm(case["clip_norm"]), optax.adamw(case["learning_rate"], weight_decay=0.0)
    )

    class Recorded(PeftTrainer):
        """Keeps the loss of the last step, as its hook for auxiliary data allows."""

        loss: Any = None

        def _post_process_train_step(self, aux: Any) -> None:
            self.loss = aux

    trainer = Recorded(model, optimizer, TrainingConfig(eval_every_n_steps=1_000_000))
    default = trainer.loss_fn

    def loss_fn(model: Any, input_tokens: Any, input_mask: Any, positions: Any, attention_mask: Any) -> Any:
        loss = default(model, input_tokens, input_mask, positions, attention_mask)
        return loss, loss

    def model_input(batch: TrainingInput) -> dict[str, Any]:
        present = batch.input_tokens != 0
        return {
            "input_tokens": batch.input_tokens,
            "input_mask": batch.input_mask,
            "positions": tunix_utils.build_positions_from_mask(present),
            "attention_mask": tunix_utils.make_causal_attn_mask(present),
        }

    trainer.with_loss_fn(loss_fn, has_aux=True).with_gen_model_input_fn(model_input)
    prompts, responses = tokens_of(case)
    rows = [prompt + some[0] for prompt, some in zip(prompts, responses, strict=True)]
    scored = [[0] * len(prompt) + [1] * len(some[0]) for prompt, some in zip(prompts, responses, strict=True)]
    batch = TrainingInput(input_tokens=jnp.asarray(np.array(rows)), input_mask=jnp.asarray(np.array(scored)))
    device = jax.devices()[0]
    if device.platform != "cpu":
        turns.on_device(lambda: int(device.memory_stats()["peak_bytes_in_use"]))
    distributions = ("google-tunix", "jax", "jaxlib", "flax", "optax")
    turns.ready(device=str(device.device_kind), distributions=distributions)

    def asked() -> Iterator[TrainingInput]:
        while True:
            turns.begin()
            yield batch
            turns.end(float(trainer.loss))  # one executable: when its loss is there, its parameters are

    trainer.train(asked())


if __name__ == "__main__":
    serve(main, "tunix", "jax")
