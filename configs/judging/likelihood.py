r"""A teacher's likelihood of every candidate of a file, under a model on this machine.

Source:   Tuna, https://arxiv.org/abs/2310.13385, Eq. 3: log p(y | x) / |y|^1.3
Command:  jaxrefine run judging/likelihood --candidates FILE --model DIR
          FILE: a JSON object a line, {"id": "1", "prompt": "2+3?\n", "candidates": [{"text": "5"}, {"text": "6"}]},
          such as the candidates.jsonl of sampling/local. DIR: a decoder in Hugging Face layout with its tokenizer
          Comparisons of all pairs by the likeliest verdict instead: --judge pairwise
Cost:     one forward pass over prompts and candidates, each prompt once; a hundred prompts with four candidates of a
          hundred tokens take a quarter of a minute with the shipped model on two CPU cores, mostly compiling
Result:   judged.jsonl in the work directory, the candidates with their scores and, in meta.judgement, where they come
          from; judged.jsonl.unjudged.jsonl, those without and why; summary.json
"""

from jaxrefine.systems.judging import LocalJudging


def get_config() -> LocalJudging:
    return LocalJudging(judge="likelihood")
