"""An operation of several processes that fails because one of them died says so."""

from __future__ import annotations

import jax
import pytest

from jaxrefine.artefacts.processes import LostProcessError, naming_lost_processes
from jaxrefine.artefacts.stopping import StoppedError

GLOO = "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Connection reset by peer"


def fail(error):
    with naming_lost_processes():
        raise error


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_a_collective_operation_that_lost_its_peer_is_named(kind, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(LostProcessError, match="process 0 of 2 has lost another one, .*Connection reset by peer"):
        fail(kind(GLOO))


def test_one_process_has_no_other_to_lose():
    with pytest.raises(ValueError, match="^UNKNOWN: Gloo"):
        fail(ValueError(GLOO))


@pytest.mark.parametrize(
    "error", [ValueError("the loader ends early"), StoppedError("no whole checkpoint, says the coordination service")]
)
def test_other_errors_stay_what_they_are(error, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(type(error)) as caught:
        fail(error)
    assert caught.value is error
