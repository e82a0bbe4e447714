r"""An evaluator's verdict on every candidate of a file, whoever wrote them: "correct" against "incorrect".

Source:   https://arxiv.org/abs/2310.10047, Eq. 5-7
Command:  jaxrefine run judging/verdict --candidates FILE --model DIR
          FILE: as for judging/likelihood. DIR: a model that was trained to say so, such as train-margin/model of
          math/tiny. Then jaxrefine run math/selection --samples GENERATOR:EVALUATOR=judged.jsonl
          --score-kind log-probability re-ranks the candidates in every way, where the file has known answers
Cost:     one forward pass over prompts and candidates, each prompt once
Result:   judged.jsonl in the work directory, each candidate with log S, the log-probability of "correct" where the two
          words are all there is; judged.jsonl.unjudged.jsonl, those without and why; summary.json
"""

from jaxrefine.systems.judging import LocalJudging


def get_config() -> LocalJudging:
    return LocalJudging(judge="verdict")
