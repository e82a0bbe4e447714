"""What is sampled from the model that every variant starts from: candidates, base samples, votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress
from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.data.examples import Candidates
from jaxrefine.data.identity import number_of
from jaxrefine.evaluation.variant_data import Judged, Lengths, judge, judged_samples, prompt_ids
from jaxrefine.sampling.generate import iterate
from jaxrefine.sampling.policies import Policy
from jaxrefine.typing import Array, Key


def sample_into(
    journal: Journal,
    base: LoadedModel,
    prompts: Sequence[Candidates],
    *,
    num_samples: int,
    policy: Policy,
    key: Key[Array, ""],
    lengths: Lengths,
    batch_size: int | None,
    description: str,
    provenance: Mapping[str, Any],
) -> None:
    """Samples and judges every prompt that the journal does not hold yet; stopped and called again, it goes on.

    Args:
        journal: gets one record a prompt: its samples with text, tokens, outcome and log-prob, and their origin.
        base: what samples.
        prompts: with their known answers.
        num_samples: a prompt.
        policy: how a token is chosen.
        key: of the job; a prompt's samples depend on it and on the prompt's id alone.
        lengths: the longest prompt and response.
        batch_size: prompts at once; None is the sampler's own choice.
        description: beside the progress bar.
        provenance: kept in every record.
    """
    missing = [prompt for prompt in prompts if prompt.id not in journal]
    if not missing:
        return
    with progress(len(prompts), description, initial=len(prompts) - len(missing), unit="prompts") as bar:
        for index, samples in iterate(
            base.model,
            base.params,
            [prompt_ids(prompt, base.tokenizer, lengths) for prompt in missing],
            prompt_ids=[number_of(prompt.id) for prompt in missing],
            num_candidates=num_samples,
            max_new_tokens=lengths.response,
            policy=policy,
            eos_id=base.tokenizer.eos_id,
            key=key,
            batch_size=batch_size,
        ):
            records = judge(missing[index], samples, base.tokenizer)
            journal.append(missing[index].id, {"samples": records, **provenance})
            bar.advance()


def sampled(journal: Journal, prompts: Sequence[Candidates]) -> list[Judged]:
    """What `sample_into` put into a journal, in the order of the prompts."""
    records = journal.records()
    return [judged_samples(prompt, records[prompt.id]["samples"]) for prompt in prompts]
