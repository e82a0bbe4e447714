r"""A model behind an endpoint compares all pairs of candidates of a file, in both orders.

Source:   PandaLM, https://arxiv.org/abs/2306.05087: a verdict that the order changes is a tie
Command:  jaxrefine run judging/pairwise --candidates FILE --endpoint.base-url URL --endpoint.model NAME
          FILE: a JSON object a line, {"id": "1", "prompt": "2+3?\n", "candidates": [{"text": "5"}, {"text": "6"}]}. A
          model with a form of its own, such as PandaLM: --prompt FILE.toml --reader leading --no-fenced
          --asking.style completion
Cost:     two requests a pair: two for two candidates, twelve for four; --endpoint.token-budget N or
          --endpoint.cost-budget DOLLARS stop it cleanly
Result:   judged.jsonl in the work directory, the candidates with their mean points; judged.jsonl.unjudged.jsonl, those
          without and why; summary.json, with the rates of conflicts, ties and unparsable answers
"""

from jaxrefine.judging.prompts import Asking
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.systems.judging import EndpointJudging


def get_config() -> EndpointJudging:
    return EndpointJudging(
        judge="pairwise",
        asking=Asking(max_tokens=512),
        endpoint=EndpointConfig(base_url="http://127.0.0.1:8000/v1", model="model"),
    )
