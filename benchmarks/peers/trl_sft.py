"""TRL's side of fine-tuning: ``SFTTrainer`` on prompt and completion, the loss over completions only."""

from __future__ import annotations

from benchmarks.peers.worker import Case, Turns, serve, tokens_of


def main(case: Case, turns: Turns) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from benchmarks.peers import trl_trainer

    turns.imported()
    prompts, responses = tokens_of(case)
    rows = [
        {"prompt": trl_trainer.text(prompt), "completion": " " + trl_trainer.text(some[0])}
        for prompt, some in zip(prompts, responses, strict=True)
    ]
    trainer = SFTTrainer(
        model=case["model"],
        args=trl_trainer.arguments(SFTConfig, case, len(rows)),
        train_dataset=Dataset.from_list(rows),
        processing_class=trl_trainer.tokenizer(case),
    )
    expected = [prompt + some[0] for prompt, some in zip(prompts, responses, strict=True)]
    trl_trainer.check(trainer.train_dataset["input_ids"], expected, "example")
    trl_trainer.train(trainer, case, turns)


if __name__ == "__main__":
    serve(main, "trl", "torch", "datasets")
