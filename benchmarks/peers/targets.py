"""What one H200 should reach, beside what was measured; and what others have published, marked as that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.compare import OURS, row_named

NOT_MEASURED = "not measured"
STORED = "reference's log-probs stored"

PUBLISHED: tuple[tuple[str, str, str, str], ...] = (
    ("DPO, N = 2", "open-instruct, OLMo2-7B, 16 × H100, packed, 16k tokens",
     "22.5 % MFU, 5,282 tokens/s/GPU", "open-instruct #1466"),
    ("DPO, N = 2", "TRL + Liger's loss, Qwen2-0.5B, H100",
     "9 h, and 2.5 h without Liger's loss", "Liger-Kernel #768"),
    ("DPO, N = 2, shared prompts", "dpo-prefix-sharing, 8 × H100, 7–8B, packed, against FlashAttention-3",
     "1.17–1.57 × not sharing", "frankxwang/dpo-prefix-sharing, README"),
    ("DPO, N = 2, shared prompts", "flash-preference, Qwen2.5-7B, A800, P = 1k, R = 1k",
     "1.26 × not sharing", "li-plus/flash-preference, README"),
    ("GRPO, G = 8, shared prompts", "Unsloth, Qwen3-4B LoRA, H200, R = 256",
     "2.55 × not sharing, 3.37 × less memory", "Unsloth #6871"),
    ("Fine-tuning", "torchtune, Llama-3.2-3B, A100, packed, compiled",
     "8,998–9,174 tokens/s (56 % MFU by our count)", "torchtune, recipes"),
    ("Training", "EasyDeL, Qwen2.5-3B, v4-64, 8k tokens", "about 10 % MFU", "EasyDeL #205"),
    ("Pre-training", "MaxText, Llama2-7B, 8 × H100", "492 TFLOP/s (49.7 % MFU)", "MaxText, README"),
    ("Training", "tunix", "none published", "tunix, docs"),
    ("Log-probs, forward", "Liger (CuTe SM90), H100, D = 4096, V = 131072, 16,384 tokens",
     "738 TFLOP/s", "Liger-Kernel, README"),
    ("Log-probs, forward", "levanter, H100, D = 2560, V = 128256, 32,768 tokens",
     "33.7 ms (638 TFLOP/s by our count)", "levanter #6596"),
    ("Log-probs, both ways", "cut cross-entropy, H100, 16,384 tokens, D = 2048, V = 248320",
     "92.6 ms, 3.09 GB; Liger 321 ms, 6.05 GB", "TRL #6858"),
)  # fmt: skip
"""(what, whose and under which conditions, figure, source): read there, not measured here, on other data and sizes."""


def targets(
    rows: Sequence[Mapping[str, Any]], packing: Sequence[Mapping[str, Any]], logprobs: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """(target on one H200, what was measured, on what): "not measured" where no row is of a GPU.

    Args:
      rows: of ``compare.figures``.
      packing: records of ``benchmarks.bench_packing``.
      logprobs: records of ``benchmarks.bench_logprobs``.
    """
    at = {"candidates": 4, "prompt": 512, "response": 256}
    ours = row_named(rows, "dpo", OURS, **at)
    peer = row_named(rows, "dpo", f"TRL DPO + Liger, {STORED}", **at)
    device = "" if ours is None or ours["mfu"] is None else str(ours["facts"]["device"])
    none = (NOT_MEASURED, "no GPU")
    found = [("≥ 45 % MFU, train step of a 1B–3B model", *(
        (f"{100 * ours['mfu']:.1f} %", device) if ours is not None and device else none
    ))]  # fmt: skip
    shared = [record for record in packing if record["platform"] == "gpu"
              and (record["shapes"]["N"], record["shapes"]["P"], record["shapes"]["R"]) == (4, 512, 256)]  # fmt: skip
    times = f"{sharing(shared[0]):.2f} ×" if shared else NOT_MEASURED
    found.append(("≥ 1.8 × our own duplicated mode, N = 4, P = 512, R = 256", times,
                  str(shared[0]["device"]) if shared else none[1]))  # fmt: skip
    speeds = [record["value"]["chunked"]["flops_per_second"] for record in logprobs if record["platform"] == "gpu"]
    found.append(("≥ 550 TFLOP/s, log-probs forward", f"{max(speeds) / 1e12:.0f} TFLOP/s" if speeds else NOT_MEASURED,
                  str(logprobs[0]["device"]) if speeds else none[1]))  # fmt: skip
    faster, smaller = none[0], none[0]
    if device and ours is not None and peer is not None:
        faster = f"{peer['ratio']['median']:.2f} ×"
        smaller = f"{ours['memory_bytes'] / peer['memory_bytes']:.2f} of it"
    found.append(("≥ 1.5 × TRL + Liger in candidates/s, N = 4", faster, device or none[1]))
    found.append(("≤ half the memory of TRL + Liger, N = 4", smaller, device or none[1]))
    return found


def sharing(record: Mapping[str, Any]) -> float:
    """Seconds with repeated prompts over seconds with shared ones, by the backend that is fastest at sharing.

    The benchmark's own ratios are round by round, but against repeated prompts with "expand"; another backend is held
    against itself.

    >>> ratios = {"shared, cudnn": 8.0, "repeated, cudnn": 4.0, "shared, expand": 3.0, "repeated, expand": 1.0}
    >>> sharing({"time_ratio": {name: {"median": ratio} for name, ratio in ratios.items()}})
    2.0
    """
    ratio = {name: float(found["median"]) for name, found in record["time_ratio"].items()}
    fastest = max((name for name in ratio if name.startswith("shared")), key=ratio.__getitem__)
    return ratio[fastest] / ratio.get(fastest.replace("shared", "repeated"), 1.0)
