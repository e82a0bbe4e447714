r"""All ways to select one of N sampled solutions, on real samples: accuracy, cost, against K and N, any evaluator.

Source:   https://arxiv.org/abs/2310.10047, Tables 3, 4 and 6; its figures stand beside, marked as published
Command:  jaxrefine run math/selection --data DIR
          DIR: the directory with qwen25_math_rm, birm, gsm8k and, where one has them, the scored samples of
          PRM800K (prm800k/scored-test-samples.jsonl, the first 64 of each problem). One's own solutions:
          --samples FILE ..., where FILE is judged.jsonl of judging/reward, a JSON object a line:
          {"id": "1", "prompt": "2+3?\n", "answer": "5", "candidates": [{"text": "#### 5", "score": 0.7}, ...]}.
          Several generators and evaluators: --samples small:rm=FILE small:truster=FILE large:rm=FILE
Cost:     no model: a minute on one CPU core; with PRM800K's 32,000 solutions ten
Result:   the table on the terminal, and in the work directory report.md, metrics.json and figures
"""

from jaxrefine.evaluation.selection import SelectionSettings
from jaxrefine.systems.math_selection import MathSelection


def get_config() -> MathSelection:
    # The paper's K = 8 is for N = 64; these samples are 4 to 15 a problem, so 8 clusters would be nearly all of them.
    return MathSelection(settings=SelectionSettings(largest=2, top=4))
