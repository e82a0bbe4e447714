r"""Candidates from a model on this machine, for a file of prompts; without one, for word problems of the shipped world.

Source:   what the five papers have in common: 4 candidates (Tuna), 64 (Math), five temperatures (ART)
Command:  jaxrefine run sampling/local --prompts FILE --model DIR --num-candidates 4 --temperatures 1.0
          FILE: a JSON object a line, {"id": "1", "prompt": "2+3?\n"}. DIR: a decoder in Hugging Face layout with its
          tokenizer. As Tuna draws them: --diversity.threshold 0.8. A part for each of two processes:
          --share.index 0 --share.count 2 --workdir runs/part0, and so on; their samples.jsonl one after the other are
          that of one process
Cost:     as it stands, under a minute on two CPU cores; compiling takes most of it
Result:   samples.jsonl in the work directory, a record a prompt in the order of the file, each candidate with its
          log-probability under the model itself; candidates.jsonl, the same for judges. Stopped at any instant, the
          same command goes on and ends with the same bytes
"""

from jaxrefine.systems.sampling import LocalSampling


def get_config() -> LocalSampling:
    return LocalSampling()
