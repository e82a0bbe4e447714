"""The side of transformers' ``generate``: all candidates of all prompts at once, every text as long."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.worker import Case, Turns, serve, tokens_of


def main(case: Case, turns: Turns) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    turns.imported()
    prompts, _ = tokens_of(case)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, case["dtype"])
    model: Any = AutoModelForCausalLM.from_pretrained(case["model"], dtype=dtype)
    model = model.to(place).eval()

    def texts(some: list[list[int]], **settings: Any) -> torch.Tensor:
        generation = GenerationConfig(
            max_new_tokens=case["new"], min_new_tokens=case["new"], pad_token_id=0, eos_token_id=None, use_cache=True,
            **settings,
        )  # fmt: skip
        model.generation_config = generation
        ids = torch.tensor(some, device=place)
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=generation)
        return out[:, ids.shape[1] :].cpu()

    greedy = texts(prompts[:1], do_sample=False)[0].tolist()
    device = "cpu"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
        turns.on_device(lambda: int(torch.cuda.max_memory_allocated()))
    turns.ready(device=device, distributions=("transformers", "torch"), greedy=greedy)
    torch.manual_seed(case["seed"])
    while True:
        turns.begin()
        found = texts(
            prompts, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=case["candidates"]
        )
        turns.end(tokens=int(found.numel()))


if __name__ == "__main__":
    serve(main, "transformers", "torch")
