r"""A strong model behind an endpoint gives every candidate of a file points on three axes.

Source:   Tuna, https://arxiv.org/abs/2310.13385: kind of task, reference, three axes of 0 to 5, rank by the sum
Command:  jaxrefine run judging/contextual --candidates FILE --endpoint.base-url URL --endpoint.model NAME
          FILE: a JSON object a line, {"id": "1", "prompt": "2+3?\n", "candidates": [{"text": "5"}, {"text": "6"}]}. A
          prompt of one's own: --prompt FILE.toml. A key: --endpoint.api-key-env NAME_OF_THE_VARIABLE
Cost:     one request a prompt, and a second where the reply is malformed; --endpoint.token-budget N or
          --endpoint.cost-budget DOLLARS stop it cleanly
Result:   judged.jsonl in the work directory, the candidates with their sums of 0 to 15, single points and reference in
          meta.judgement; judged.jsonl.unjudged.jsonl, those without and why; summary.json, with the mean sum by place
"""

from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.systems.judging import EndpointJudging


def get_config() -> EndpointJudging:
    return EndpointJudging(
        judge="contextual", endpoint=EndpointConfig(base_url="http://127.0.0.1:8000/v1", model="model")
    )
