r"""PandaLM's judge at its published settings on 3,000 to 300,000 records: agreement against how much it learned.

Source:   PandaLM, https://arxiv.org/abs/2306.05087, the data-size ablation; the sizes between are ours
Command:  jaxrefine run pandalm/data_sizes_published --whole.judge.start LLAMA_7B --whole.judge.records RECORDS.json
Cost:     half as much again as pandalm/judge, whose records are the largest size. Not run here
Expected: agreement that rises with the records; the paper has no figures for sizes below the whole
"""

from jaxrefine import config
from jaxrefine.systems.pandalm_sizes import JudgeDataSizes


def get_config() -> JudgeDataSizes:
    return JudgeDataSizes(whole=config.load("pandalm/judge"), sizes=(3_000, 10_000, 30_000, 100_000, 300_000))
