r"""PandaLM's judge without reasons and references: it learns and writes the verdict alone.

Source:   PandaLM, https://arxiv.org/abs/2306.05087, ablation
Command:  jaxrefine run pandalm/judge_verdict_only --judge.start LLAMA_7B --judge.records RECORDS.json
Cost:     somewhat less than pandalm/judge: responses are one word. Not run here
Expected: an accuracy of 0.4725 in the paper, where the whole target reaches 0.5926
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.pandalm import PandaLM


def get_config() -> PandaLM:
    base: PandaLM = config.load("pandalm/judge")
    form = dataclasses.replace(base.judge.form, says="verdict", max_tokens=8)
    training = dataclasses.replace(base.judge.training, max_prompt=1016, max_response=8)
    return dataclasses.replace(
        base,
        judge=dataclasses.replace(base.judge, form=form, training=training),
        title="PandaLM's judge, verdicts alone",
    )
