"""Ask, refine, trust on real answers: four models' answers to GSM8K before and after better sub-questions.

Source:   https://arxiv.org/abs/2311.07961, its figures stand beside, marked as published; the transcripts are those of
          GSM8K-AI-SubQ, the models that stand in for Asker and Truster those of ToRA and RouteLLM
Command:  jaxrefine run art/transcripts --data DIR
          DIR: the directory with gsm8k, gsm8k_ai_subq, tora and routellm
Cost:     no model: a minute on one CPU core
Result:   the table on the terminal, and in the work directory report.md, metrics.json and a figure
"""

from jaxrefine.systems.art_transcripts import Transcripts


def get_config() -> Transcripts:
    return Transcripts()
