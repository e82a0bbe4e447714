"""Compiles the packed step of the memory gates for hardware that is not there; run by test_gates in its own process.

One line of JSON: bytes of a device by kind, and what was sent.
"""

from __future__ import annotations

import json
import sys
import time

from jaxrefine.planning.topology import parse_topology, prepare


def main(name: str, attention: str) -> None:
    """64 prompts of 512 tokens, four responses of 256 each, LLaMA-3-8B, AdamW, all devices on fsdp, full remat."""
    topology = parse_topology(name)
    prepare(topology.chip.platform)
    from jaxrefine.planning.compiled import compile_training  # after the environment
    from jaxrefine.planning.devices import absent_devices
    from jaxrefine.planning.setup import Setup, default_attention
    from jaxrefine.planning.shapes import model_shape
    from jaxrefine.scoring.objectives import ObjectiveConfig
    from jaxrefine.training.finetuning import Finetuning

    training = Finetuning(
        objective=ObjectiveConfig(loss="margin_ranking", mle_weight=1.0), groups_per_step=64, max_prompt=512,
        max_response=256, slots=1536,
    )  # fmt: skip
    model = model_shape("llama-3-8b")
    own, remark = default_attention(topology, model, training.slots)
    setup = Setup(training=training, model=model, num_candidates=4, attention=attention or own)
    started = time.process_time()
    found = compile_training(setup, absent_devices(topology), topology)
    sys.stdout.write(
        json.dumps(
            {
                "total": found.memory.total,
                "parameters": found.memory.parameters,
                "optimizer": found.memory.optimizer,
                "temporaries": found.memory.temporaries,
                "rows": list(setup.made(absent_devices(topology)).batch.tokens.shape),
                "attention": setup.attention,
                "remark": remark,
                "sent": {item.kind: item.bytes for item in found.sent},
                "complete": all(item.is_complete for item in found.sent),
                "cpu_seconds": time.process_time() - started,
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
