"""What the paper reports of ask, refine, trust: the reference rows of our reports, never a result of ours.

Source: Shridhar et al. 2023, The ART of LLM Refinement (arXiv 2311.07961).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

CHATGPT, LLAMA, CHAT, GPT4 = "ChatGPT", "LLaMA-2 70B", "LLaMA-2 70B chat", "GPT-4"
STRATEGY_CHATGPT, STRATEGY_LLAMA = "StrategyQA: ChatGPT", "StrategyQA: LLaMA-2 70B"
PUBLISHED_MODELS = (CHATGPT, LLAMA, CHAT, GPT4, STRATEGY_CHATGPT, STRATEGY_LLAMA)
"""Models that answer and refine; GSM8K where nothing else is said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row: accuracies in %."""

    method: str
    asks: str = "–"
    """Who decides."""
    trusts: str = "–"
    """Who chooses."""
    accuracy: Mapping[str, float]
    """By model."""


PUBLISHED: tuple[PublishedRow, ...] = (
    PublishedRow(
        method="no refinement, chain of thought",
        accuracy={CHATGPT: 77, LLAMA: 59, GPT4: 91.88, STRATEGY_CHATGPT: 70.52, STRATEGY_LLAMA: 75.15},
    ),
    PublishedRow(method="no refinement, sub-questions", accuracy={CHATGPT: 78, LLAMA: 55}),
    PublishedRow(method="Self-Refine", asks="always", accuracy={CHATGPT: 75.10}),
    PublishedRow(method="best earlier refinement", asks="self", accuracy={GPT4: 93.10}),
    PublishedRow(method="self decides", asks="self", accuracy={CHATGPT: 78.62, LLAMA: 59.83, CHAT: 58.83}),
    PublishedRow(method="Asker", asks="LLaMA 7B", accuracy={CHATGPT: 80.89, LLAMA: 61.33, CHAT: 60.12}),
    PublishedRow(method="Asker", asks="LLaMA 13B", accuracy={CHATGPT: 82.18, LLAMA: 62.74, CHAT: 63.00, GPT4: 93.72}),
    PublishedRow(method="Asker", asks="LLaMA 70B", accuracy={LLAMA: 63.60, CHAT: 63.80}),
    PublishedRow(method="Asker", asks="MetaMath 7B", accuracy={LLAMA: 62.31}),
    PublishedRow(method="Asker", asks="MetaMath 13B", accuracy={LLAMA: 64.06}),
    PublishedRow(
        method="Asker + self-selection", asks="LLaMA 13B", trusts="self",
        accuracy={CHATGPT: 78.89, LLAMA: 60.43, CHAT: 59.55},
    ),
    PublishedRow(
        method="Asker + Truster (ART)", asks="LLaMA 13B", trusts="LLaMA 13B",
        accuracy={CHATGPT: 82.64, LLAMA: 64.24, CHAT: 64.40, GPT4: 94.08, STRATEGY_CHATGPT: 75.76,
                  STRATEGY_LLAMA: 78.38},
    ),
    PublishedRow(method="the large model fine-tuned (RFT)", accuracy={LLAMA: 63.2}),
)  # fmt: skip
"""Whole numbers are read off roughly. The Asker's size beside self-selection, the Truster, GPT-4 and StrategyQA is our
reading of the text."""

PUBLISHED_COSTS: tuple[str, ...] = (
    "training a 13B Truster costs a tenth of fine-tuning the 70B model, Asker and Truster together a fifth",
    "refining is best at 30 to 35 % of the queries; always refining is worse",
    "the Truster reverts to the first answer about 50 % more often than self-selection",
    "first and refined answer agree in 80 % of the queries",
    "Askers from MetaMath refine 27 % (7B) and 25 % (13B) fewer queries",
)
"""What the paper says of costs and shares."""
