"""Names of hardware, and what is said where a name or an extra is missing."""

import pytest

from jaxrefine.planning import topology as module
from jaxrefine.planning.topology import (
    CHIPS,
    LateEnvironmentError,
    MissingExtraError,
    check_extra,
    environment,
    parse_topology,
    prepare,
)


@pytest.mark.parametrize(
    ("name", "chip", "shape", "devices"),
    [
        ("v5e-16", "v5e", (4, 4), 16),
        ("V5E-256", "v5e", (16, 16), 256),
        ("v5p-8", "v5p", (2, 2, 1), 4),
        ("v5p-16", "v5p", (2, 2, 2), 8),
        ("v5p-128", "v5p", (4, 4, 4), 64),
        ("v5p:4x4x8", "v5p", (4, 4, 8), 128),
        ("v6e:2x4", "v6e", (2, 4), 8),
        ("h100x1", "h100", (1, 1), 1),
        ("h100x8", "h100", (1, 8), 8),
        ("h200 x 32", "h200", (4, 8), 32),
    ],
)
def test_a_topology_has_the_chips_of_its_name(name, chip, shape, devices):
    found = parse_topology(name)
    assert (found.chip.name, found.shape, found.num_devices) == (chip, shape, devices)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v6r-16", "unknown chip 'v6r'; did you mean 'v6e'?"),
        ("h100-8", "did you mean 'h100x8'?"),
        ("v5ex16", "did you mean 'v5e-16'?"),
        ("v5e-17", "Allowed: v5e-1, v5e-4, v5e-8, v5e-16"),
        ("v5p-4", "Allowed: v5p-8, v5p-16"),
        ("h100x12", "whole nodes of 8"),
        ("h100x0", "whole nodes of 8"),
        ("h100:1x8", "a shape is that of a TPU"),
        ("v5p:2x2", "of 3 axes for v5p"),
        ("pod", "give a chip and how many"),
    ],
)
def test_a_name_that_is_none_is_answered_with_what_is_allowed(name, said):
    with pytest.raises(ValueError) as refused:
        parse_topology(name)
    assert said in str(refused.value)


def test_the_published_figures_of_each_chip():
    """bf16 TFLOP/s and GB/s of memory, as their makers publish them."""
    figures = {name: (chip.flops / 1e12, chip.bandwidth / 1e9) for name, chip in CHIPS.items()}
    assert figures == {
        "v5e": (197, 819), "v5p": (459, 2765), "v6e": (918, 1640), "h100": (989, 3352), "h200": (989, 4800)
    }  # fmt: skip


@pytest.mark.parametrize(("platform", "extra"), [("tpu", "plan-tpu"), ("gpu", "plan-gpu")])
def test_a_missing_compiler_is_named_with_its_extra_and_the_command(monkeypatch, platform, extra):
    monkeypatch.setattr(module, "_is_installed", lambda name: False)
    with pytest.raises(MissingExtraError, match=rf"the extra '{extra}': pip install"):
        check_extra(platform)


def test_the_environment_looks_for_no_device_and_keeps_an_effort_that_was_asked_for():
    environ = {"HOME": "there", "JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "0.5"}
    prepare("gpu", environ)
    assert environ["JAX_PLATFORMS"] == "cpu,cuda"
    assert environ["CUDA_VISIBLE_DEVICES"] == "-1"
    assert environ["JAX_EXEC_TIME_OPTIMIZATION_EFFORT"] == "0.5"
    assert environment("tpu")["JAX_EXEC_TIME_OPTIMIZATION_EFFORT"] == "-1.0"


def test_an_environment_that_comes_too_late_is_refused_with_what_to_set(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    with pytest.raises(LateEnvironmentError, match=r"start the process with .*TPU_SKIP_MDS_QUERY=1"):
        prepare("tpu")
