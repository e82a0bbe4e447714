"""A model of ours behind ``transformers serve`` on loopback: a real OpenAI-compatible server for tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained

SHIPPED = pathlib.Path(__file__).parent.parent.parent / "jaxrefine" / "shipped" / "arithmetic-small"
CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
"""As the shipped model reads a problem: its text and a line end after BOS."""

_SERVE = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"


def export(directory: pathlib.Path) -> pathlib.Path:
    """The shipped small model as we write it, in fp32, with a chat template."""
    config, params = load_pretrained(SHIPPED)
    save_pretrained(directory, config, params, tokenizer_dir=SHIPPED, dtype=np.float32)
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return directory


@contextlib.contextmanager
def transformers_server(model: pathlib.Path) -> Iterator[str]:
    """Serves a model directory; yields the ``base_url``. Skips the test where the server's packages are absent."""
    for package in ("torch", "accelerate", "fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(package) is None:  # importing them here would take seconds
            pytest.skip(f"{package}, which `transformers serve` needs, is not installed")
    arguments = ["serve", str(model), "--host", "127.0.0.1", "--port", "0", "--device", "cpu", "--dtype", "float32"]
    hidden = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_TOKEN"))}
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=hidden | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert server.stderr is not None
    try:
        said = []
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            raise RuntimeError("`transformers serve` ended before it served:\n" + "".join(said))
        # whatever it says from here on is read, or the pipe would fill up and stop it
        rest = threading.Thread(target=server.stderr.read, daemon=True)
        rest.start()
        yield f"{found.group(1)}/v1"
        server.terminate()
        rest.join()
    finally:
        server.kill()
        server.wait()
        server.stderr.close()
