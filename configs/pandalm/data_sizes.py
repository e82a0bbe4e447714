"""The judge of pandalm/tiny on 300 to 4,800 records, and its agreement with the teacher on held-out pairs.

Source:   PandaLM, https://arxiv.org/abs/2306.05087, the data-size ablation
Command:  jaxrefine run pandalm/data_sizes
Cost:     twice as much as pandalm/tiny takes to come to its judge: 775 steps in all; 45 minutes were measured on two
          CPU cores beside a dozen other jobs (load 13)
Result:   a table and a curve of accuracy, macro F1 and κ against the number of records, by what the judge writes and by
          the likelihood of its verdicts. Once, on 174 held-out pairs (always tie: 0.385), by reply, of 300, 600, 1,200,
          2,400 and 4,800 records: accuracy 0.345, 0.356, 0.379, 0.517 [0.445, 0.595] and 0.782 [0.717, 0.844], κ 0.03,
          -0.04, -0.00, 0.23 and 0.66; the order of the two answers changes 82, 56, 54, 50 and 24 % of the verdicts. Up
          to 1,200 it learns the form and no judgement. By likelihood it stays at chance (0.32 to 0.38): such a judge
          needs its own reference and reason before it can tell. One seed; every record is learned once, so less data is
          fewer steps too. (pandalm/tiny, whose 4,800 are drawn otherwise, comes to 0.701 on the same pairs.)
"""

import dataclasses

from jaxrefine import config
from jaxrefine.systems.pandalm_sizes import JudgeDataSizes


def get_config() -> JudgeDataSizes:
    tiny = config.load("pandalm/tiny")
    training = dataclasses.replace(tiny.judge.training, epochs=1, steps=None)  # every record once
    judge = dataclasses.replace(tiny.judge, training=training)
    return JudgeDataSizes(whole=dataclasses.replace(tiny, judge=judge, search=None), sizes=(300, 600, 1200, 2400, 4800))
