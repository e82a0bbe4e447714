"""Training data without what shares six words in a row with a benchmark, and a report on what went.

Source:   https://arxiv.org/abs/2311.08692, §4: the 6-gram rule against every benchmark
Command:  jaxrefine run zooter/decontaminate --examples train.jsonl --against mmlu=mmlu.jsonl gsm8k=gsm8k.jsonl
Cost:     no model: seconds for 50,000 examples
Result:   in the work directory kept.jsonl (lines as they were), removed.jsonl (each with the words that it shares and
          with what) and report.md
"""

from jaxrefine.systems.decontamination import Decontamination


def get_config() -> Decontamination:
    return Decontamination()
