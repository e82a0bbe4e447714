r"""Candidates from a model behind an OpenAI-compatible endpoint, for a file of prompts.

Source:   what Tuna's teacher, PandaLM's tuned models and ZOOTER's experts have in common
Command:  jaxrefine run sampling/endpoint --prompts FILE --endpoint.base-url URL --endpoint.model NAME
          FILE: a JSON object a line, {"id": "1", "prompt": "What is 2 + 3?"}. A key, where one is needed, is read from
          the environment: --endpoint.api-key-env NAME_OF_THE_VARIABLE
Cost:     what the endpoint takes: --endpoint.token-budget N, or --endpoint.cost-budget DOLLARS with
          --endpoint.prompt-price and --endpoint.reply-price (dollars per million tokens), stop it cleanly
Result:   samples.jsonl in the work directory, four candidates a prompt; candidates.jsonl, the same for judges;
          spending.json; and all replies in --keep, where nothing that was paid for is asked again

A model directory on this machine is such an endpoint too: `transformers serve DIR` and
--endpoint.base-url http://127.0.0.1:8000/v1 --endpoint.model DIR (it samples only where DIR's generation_config.json
has "do_sample": true).
"""

from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.systems.sampling_endpoint import EndpointSampling


def get_config() -> EndpointSampling:
    return EndpointSampling(endpoint=EndpointConfig(base_url="http://127.0.0.1:8000/v1", model="model"))
