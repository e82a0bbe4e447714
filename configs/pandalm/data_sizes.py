"""The judge of pandalm/tiny on less: 300 to 2,400 records, and its agreement with the teacher on held-out pairs.

Source:   PandaLM, https://arxiv.org/abs/2306.05087, the data-size ablation
Command:  jaxrefine run pandalm/data_sizes
Cost:     as much as pandalm/tiny takes to come to its judge: 375 steps in all; minutes on two CPU cores
Result:   a table and a curve of accuracy, macro F1 and κ against the number of records, by what the judge writes and by
          the likelihood of its verdicts
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.pandalm_sizes import JudgeDataSizes


def get_config() -> JudgeDataSizes:
    tiny = config.load("pandalm/tiny")
    training = dataclasses.replace(tiny.judge.training, epochs=1, steps=None)  # every record once
    judge = dataclasses.replace(tiny.judge, training=training)
    return JudgeDataSizes(whole=dataclasses.replace(tiny, judge=judge, search=None), sizes=(300, 600, 1200, 2400))
