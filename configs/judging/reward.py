r"""The reward of every candidate of a file, under a reward model on this machine.

Source:   ZOOTER, https://arxiv.org/abs/2311.08692, whose targets are such rewards; ART's Truster is one, too
Command:  jaxrefine run judging/reward --candidates FILE --model DIR
          FILE: a JSON object a line, {"id": "1", "prompt": "2+3?\n", "candidates": [{"text": "5"}, {"text": "6"}]}.
          DIR: a model of ours saved with its reward head, or a …ForSequenceClassification of one label, decoder or
          encoder
Cost:     one forward pass over prompts and candidates, each prompt once
Result:   judged.jsonl in the work directory, the candidates with their rewards and, in meta.judgement, where they come
          from; judged.jsonl.unjudged.jsonl, those without and why; summary.json
"""

from jaxrefine.systems.judging import LocalJudging


def get_config() -> LocalJudging:
    return LocalJudging(judge="reward")
