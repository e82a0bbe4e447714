"""An evaluator's label is the log-odds of its two words, as they are when every solution is read by itself."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.data.examples import Candidates
from jaxrefine.data.groups import TokenGroup, tokenize_group
from jaxrefine.judging.local import Rows, local_model
from jaxrefine.judging.provenance import details_of, provenance_of
from jaxrefine.judging.verdict import VerdictJudge
from tests.evaluation.tiny_model import save_tiny_model
from tests.scoring.separate import span_logprobs, spans

EXAMPLES = [
    Candidates("1", "Mia has 2 pens and buys 3. How many?\n", ("2+3=5\n#### 5", "#### 6", "2+3=5\n#### 5"), (0.0,) * 3),
    Candidates("2", "Leo eats 2 of 9 plums.\n", ("#### 7",), (0.0,)),
]
LIMITS = {"max_prompt": 64, "max_response": 32}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = save_tiny_model(tmp_path_factory.mktemp("model"))
    return load_model(directory, Placement(num_devices=1))


def test_labels_are_those_of_separate_solutions_read_one_by_one(loaded: LoadedModel):
    judge = VerdictJudge(local_model(loaded, "evaluator"), rows=Rows(**LIMITS, slots=128))
    labelled = judge(EXAMPLES)
    separately = jax.jit(lambda params, **found: span_logprobs(params, loaded.model.config, **found))
    for example, result in zip(EXAMPLES, labelled, strict=True):
        assert isinstance(result, Candidates)
        group = tokenize_group(
            example, loaded.tokenizer, group_id=0, **LIMITS,
            suffix="\nThis solution is", verdicts=(" correct", " incorrect"),
        )  # fmt: skip
        assert isinstance(group, TokenGroup)
        right, wrong = (
            np.asarray(separately(loaded.params, **spans([group], 3, 128, word=word)), np.float64)[
                : len(example.responses)
            ]
            for word in (0, 1)
        )
        # log S, Eq. 7: right − log(exp right + exp wrong)
        np.testing.assert_allclose(result.labels, right - np.logaddexp(right, wrong), rtol=1e-4)
        assert len(set(example.responses)) == len(set(result.labels))
        assert details_of(result)["tokens"] == [len(response) for response in group.responses]
    by = provenance_of(labelled[0])
    assert by is not None
    assert (by.judge, by.model, by.model_version) == ("verdict", "evaluator", loaded.digest)
