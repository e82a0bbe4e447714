r"""Tags for queries that have none: a language model says in a few words what each of them is about.

Source:   https://arxiv.org/abs/2311.08692: rewards are smoothed by the tags that a tagger gives; the wording is ours
Command:  jaxrefine run zooter/tags --queries FILE --endpoint.base-url URL --endpoint.model NAME
          FILE: as zooter/published has it, without tags. A model on this machine, say a tagger: --model DIR. A key:
          --endpoint.api-key-env NAME_OF_THE_VARIABLE
Cost:     one reply of at most 96 tokens a query; --endpoint.token-budget N stops it cleanly
Result:   in the work directory tagged.jsonl, for --queries of zooter/published; failed.jsonl, those whose reply was no
          list of tags, which stay without; summary.json, how often each tag was given
"""

from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.systems.zooter_tagging import Tagging


def get_config() -> Tagging:
    return Tagging(endpoint=EndpointConfig(base_url="http://127.0.0.1:8000/v1", model="model"))
