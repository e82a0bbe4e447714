"""A judge that is trained on verdicts: what it is shown, what it learns to say, and how it is asked and read.

Source: PandaLM, arXiv:2306.05087 (verdict, reason and reference as plain text; verdict-only training as an ablation;
log-likelihood judges without and with examples).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from jaxrefine.config import unknown_name
from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.data.examples import Instruction, Verdict
from jaxrefine.data.readers_instructions import whole_instruction
from jaxrefine.data.readers_pandalm import VERDICT_TEXTS, JudgementRecord
from jaxrefine.judging.local import LocalModel, Rows, local_model
from jaxrefine.judging.pairwise import Asker
from jaxrefine.judging.prompts import Asking, Prompt
from jaxrefine.judging.verdicts import GenerativeAsker, Heard, LikelihoodAsker, VerdictTexts
from jaxrefine.sampling.local_responder import LocalResponder
from jaxrefine.sampling.responder import Responder

Says = Literal["verdict, reason, reference", "verdict", "reference, verdict", "reference, reason, verdict"]

DISTILLED = Prompt(
    "pairwise",
    user="{instruction}\n\nFirst response:\n{first}\n\nSecond response:\n{second}\n\nJudgement:\n",
)
"""What a trained judge is shown: short, for it needs no rules."""

_TEXTS: Mapping[Verdict, str] = {verdict: text for text, verdict in VERDICT_TEXTS.items()}
_REASON = re.compile(r"^Reason:(.*?)(?=^Reference:|\Z)", re.DOTALL | re.MULTILINE)
_ESCAPES = str.maketrans({"{": "{{", "}": "}}"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeForm:
    r"""What a judge is shown and what it says.

    Raises:
        ValueError: an unknown order of what it says, or fields that the text lacks or may not have.

    >>> record = JudgementRecord(id="1", instruction="2+3?", first="5", second="6", verdict="first", reference="5")
    >>> JudgeForm(says="verdict").example(record).response, JudgeForm(says="reference, verdict").response(record)
    ('1', '5\n1')
    """

    says: Says = "verdict, reason, reference"
    """PandaLM's order; the verdict alone (an ablation of the paper's); or a reference first, and perhaps the reason,
    after which the verdict is a matter of comparing: for models too small to know it at once."""
    user: str = DISTILLED.user
    """What it is shown: text with the fields instruction, first and second, which ends where the judgement begins."""
    max_tokens: int = 512
    """Of a reply."""

    def __post_init__(self) -> None:
        if self.says not in get_args(Says):
            raise ValueError(unknown_name(self.says, get_args(Says), "order of what a judge says"))
        self.template()

    def template(self) -> Prompt:
        """What it is shown."""
        return Prompt("pairwise", user=self.user)

    def question(self, record: JudgementRecord) -> str:
        """What it is shown of a pair."""
        task = whole_instruction(record.instruction, record.input)
        return self.template().render(instruction=task, first=record.first, second=record.second)

    def response(self, record: JudgementRecord) -> str:
        """What it learns to say of a pair."""
        verdict = _TEXTS[record.verdict]
        if self.says == "verdict":
            return verdict
        if self.says.startswith("reference"):
            parts = [record.reference, *([record.reason] if "reason" in self.says else []), verdict]
            return "\n".join(part.strip() for part in parts)
        return f"{verdict}\n\nReason: {record.reason.strip()}\n\nReference:\n{record.reference.strip()}"

    def example(self, record: JudgementRecord) -> Instruction:
        """The pair as something to learn."""
        return Instruction(record.id, self.question(record), self.response(record), meta=record.meta)

    def reason(self, reply: str) -> str:
        r"""The reason that a reply gives, where its form marks one as PandaLM's does; else "".

        >>> JudgeForm().reason("1\n\nReason: It is\nshort.\n\nReference:\n5"), JudgeForm().reason("1")
        ('It is\nshort.', '')
        """
        found = _REASON.search(reply) if self.says == "verdict, reason, reference" else None
        return found[1].strip() if found else ""

    def asker(self, responder: Responder, heard: Heard | None = None) -> GenerativeAsker:
        """Asks a model that was trained so, and reads its verdict strictly.

        Args:
            responder: the model.
            heard: told of each reply.
        """
        return GenerativeAsker(
            responder,
            prompt=self.template(),
            asking=Asking(style="completion", max_tokens=self.max_tokens),
            reader="last" if self.says.startswith("reference") else "leading",
            fenced=False,
            heard=heard,
        )

    def likelihood_asker(
        self, model: LocalModel, *, rows: Rows | None = None, shots: Sequence[JudgementRecord] = ()
    ) -> LikelihoodAsker:
        """Takes the likeliest of the three verdict texts, without letting the model write.

        Args:
            model: trained so, or any model; one that says a reference first is asked for the verdict at once.
            rows: limits and sizes.
            shots: pairs with their verdicts that stand before the question.
        """
        first, second, tie = (_TEXTS[verdict] for verdict in get_args(Verdict))
        prompt = with_shots(self.template(), shots) if shots else self.template()
        texts = VerdictTexts(first=first, second=second, tie=tie)
        return LikelihoodAsker(model, prompt=prompt, verdicts=texts, rows=rows, fenced=False)


def make_asker(
    model: LoadedModel,
    form: JudgeForm,
    *,
    by: Literal["reply", "likelihood"] = "reply",
    rows: Rows | None = None,
    slots: int = 64,
    shots: Sequence[JudgementRecord] = (),
    heard: Heard | None = None,
) -> Asker:
    """A judge that is here, for ``PairwiseJudge``.

    Args:
        model: a decoder.
        form: what it is shown and says.
        by: what it writes, or the likeliest of the three verdict texts.
        rows: of the likelihood.
        slots: replies that grow at once.
        shots: before the question; only by likelihood.
        heard: told of each reply of a judge that writes.

    Raises:
        ValueError: shots for a judge that writes.
    """
    name = model.directory.resolve().name
    if by == "likelihood":
        return form.likelihood_asker(local_model(model), rows=rows, shots=shots)
    if shots:
        raise ValueError("judged pairs before the question are for a judge by likelihood")
    responder = LocalResponder(
        model.model, model.params, model.tokenizer, name=name, version=model.digest,
        max_new_tokens=form.max_tokens, slots=slots, columns=1, mesh=model.mesh,
    )  # fmt: skip
    return form.asker(responder, heard)


def with_shots(prompt: Prompt, shots: Sequence[JudgementRecord]) -> Prompt:
    r"""The prompt with judged pairs before the question, each with its verdict.

    Args:
        prompt: of a pairwise judge that ends where the verdict begins.
        shots: the pairs, in order.

    >>> record = JudgementRecord(id="1", instruction="2+3?", first="{5}", second="6", verdict="second")
    >>> shown = with_shots(Prompt("pairwise", "{instruction} {first} or {second}: "), [record])
    >>> shown.render(instruction="1+1?", first="2", second="3")
    '2+3? {5} or 6: 2\n\n1+1? 2 or 3: '
    """
    shown = [
        prompt.render(
            instruction=whole_instruction(shot.instruction, shot.input), first=shot.first, second=shot.second, format=""
        )
        + _TEXTS[shot.verdict]
        for shot in shots
    ]
    before = "".join(f"{text}\n\n".translate(_ESCAPES) for text in shown)
    return dataclasses.replace(prompt, user=before + prompt.user)
