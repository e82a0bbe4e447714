"""TRL's side of DPO: ``DPOTrainer`` on the pairs of the first response with each of the others.

N candidates are N − 1 pairs there, in each of which prompt and first response are read again. With ``reference`` =
"stored" the reference's log-probs are computed before training (``precompute_ref_log_probs``), as ours are; with
"each step", TRL's default, a second copy of the model runs beside.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers.worker import Case, Turns, serve, tokens_of


def pairs_of(case: Case) -> list[tuple[list[int], list[int], list[int]]]:
    """(prompt, chosen, rejected) as ids."""
    prompts, responses = tokens_of(case)
    return [
        (prompt, some[0], other)
        for prompt, some in zip(prompts, responses, strict=True)
        for other in some[1:]
    ]  # fmt: skip


def main(case: Case, turns: Turns) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from benchmarks.peers import trl_trainer

    turns.imported()
    pairs = pairs_of(case)
    rows: list[dict[str, Any]] = [
        {
            "prompt": trl_trainer.text(prompt),
            "chosen": " " + trl_trainer.text(chosen),
            "rejected": " " + trl_trainer.text(rejected),
        }
        for prompt, chosen, rejected in pairs
    ]
    trainer = DPOTrainer(
        model=case["model"],
        args=trl_trainer.arguments(
            DPOConfig, case, len(rows), beta=0.1, precompute_ref_log_probs=case["reference"] == "stored"
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=trl_trainer.tokenizer(case),
    )
    for number, name in enumerate(("prompt_ids", "chosen_ids", "rejected_ids")):
        trl_trainer.check(trainer.train_dataset[name], [pair[number] for pair in pairs], name)
    trl_trainer.train(trainer, case, turns)


if __name__ == "__main__":
    serve(main, "trl", "torch", "datasets")
