r"""Judges against people: accuracy, macro precision, recall, F1 and κ on PandaLM's test set, and who beats whom.

Source:   PandaLM, https://arxiv.org/abs/2306.05087; the files are in https://github.com/WeOpenML/PandaLM, data/
Command:  jaxrefine run pandalm/agreement --data DIRECTORY
          DIRECTORY: testset-v1.json and *-testset-v1.json, plain or .gz. A judge of your own, in both orders:
          --judge MODEL_DIRECTORY; by the likelihood of its verdict texts: --by likelihood, with judged examples before
          the question --shots RECORDS.jsonl --num-shots 5. The report says which of the 999 rows the file has; of all
          of them, whether majorities and released verdicts come to what is known (PandaLM-7B 0.6677, F1 0.5743;
          GPT-3.5 0.7107, 0.5755). Other human judgements (Auto-J's 58 scenarios):
          --pairs FILE --pairs-format auto_j
Cost:     seconds for published verdicts; a judge writes two replies a pair
Result:   a table with the published rows beside it, report.md with the matrix of wins, losses and ties and the graph of
          who beats whom by people and by each judge, metrics.json
"""

from jaxrefine.systems.judge_agreement import JudgeAgreement


def get_config() -> JudgeAgreement:
    return JudgeAgreement(title="Judges against people on PandaLM's test set")
