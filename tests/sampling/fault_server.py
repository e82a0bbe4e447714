"""A server on loopback that speaks OpenAI's protocol, and misbehaves as its prompts say; it keeps its own accounts."""

from __future__ import annotations

import collections
import email.utils
import gzip
import http.server
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

REPLY_TOKENS = 3
TIMEOUT = 120.0


class FaultServer:
    """Answers a prompt with ``reply(prompt, choice)`` once its faults are used up, one fault an arrival.

    Each arrival takes ``seconds``, and the first ``gather`` wait for each other.

    A prompt is the text of a completion, or that of a chat's last message. ``counts`` is what a bill would rest on.
    """

    def __init__(self, faults: Mapping[str, Sequence[str]] | None = None, *, gather: int = 1, seconds: float = 0):
        self._faults = {prompt: collections.deque(names) for prompt, names in (faults or {}).items()}
        self._gather = threading.Barrier(gather)
        self._lock = threading.Condition()
        self._released = threading.Event()
        self.arrivals: collections.Counter[str] = collections.Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.prompt_tokens = self.reply_tokens = 0
        self.under_way = self.most_under_way = 0
        self.held = self.sent = 0
        self.said_model = ""
        self.unknown_prompts: list[str] = []
        self.seconds = seconds
        server = self

        class Handler(_Handler):
            faulty = server

        self._http = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> FaultServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def wait_until_held(self, number: int) -> None:
        """Blocks until so many requests hang at once."""
        with self._lock:
            assert self._lock.wait_for(lambda: self.held >= number, TIMEOUT)

    # what handlers call

    def arrive(self, prompt: str, body: dict[str, Any], key: str) -> str:
        with self._lock:
            self.arrivals[prompt] += 1
            self.bodies.append(body)
            self.keys.add(key)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            faults = self._faults.get(prompt)
            fault = faults.popleft() if faults else ""
        self._gather.wait(TIMEOUT)
        if self.seconds:
            time.sleep(self.seconds)
        return fault

    def leave(self) -> None:
        with self._lock:
            self.under_way -= 1

    def bill(self, prompt_tokens: int, reply_tokens: int) -> None:
        with self._lock:
            self.prompt_tokens += prompt_tokens
            self.reply_tokens += reply_tokens

    def bill_unknown(self, prompt: str) -> None:
        with self._lock:
            self.unknown_prompts.append(prompt)

    @property
    def unknown(self) -> int:
        return len(self.unknown_prompts)

    def flooded(self, size: int) -> None:
        with self._lock:
            self.sent += size

    def hold(self) -> None:
        with self._lock:
            self.held += 1
            self._lock.notify_all()
        self._released.wait(TIMEOUT)

    def drip(self) -> bool:
        """Waits a little; False once the server closes."""
        return not self._released.wait(0.02)


def reply(prompt: str, choice: int = 0) -> str:
    """The text that the server answers with."""
    return f"re: {prompt}" + (f" ({choice})" if choice else "")


def tokens_of(text: str) -> list[str]:
    """How the server splits a text: words with the spaces before them."""
    return re.findall(r"\s*\S+", text)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go at any time."""


class _Handler(http.server.BaseHTTPRequestHandler):
    faulty: FaultServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        fault, _, detail = self.faulty.arrive(prompt, body, key).partition(" ")
        self._present = True
        try:
            self._answer(fault, detail, body, prompt, key)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._present:
            self._present = False
            self.faulty.leave()

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps quiet."""

    def _answer(self, fault: str, detail: str, body: dict[str, Any], prompt: str, key: str) -> None:
        if fault.isdigit():
            name, _, value = detail.partition("=")
            headers = {}
            if name == "after":
                headers["Retry-After"] = value
            elif name == "date":
                headers["Retry-After"] = email.utils.formatdate(float(value), usegmt=True)
            elif name == "to":
                headers["Location"] = value
            content = b"<html><h1>Bad Gateway</h1></html>" if detail == "html" else b""
            said = {"error": {"message": f"no, not with {key}", "code": detail or None}}
            self._send(int(fault), content or json.dumps(said).encode(), headers)
        elif fault == "hang":
            self.faulty.bill_unknown(prompt)
            self.faulty.hold()
        elif fault == "drip":
            self.faulty.bill_unknown(prompt)
            self._start(200, {"Content-Length": str(10**6)})
            while self.faulty.drip():
                self.wfile.write(b" ")
        elif fault in ("bloated", "bomb"):
            self.faulty.bill_unknown(prompt)
            self._flood(int(detail), packed=fault == "bomb")
        elif fault == "cut":
            self.faulty.bill_unknown(prompt)
            self._start(200, {"Content-Length": "100"})
            self.wfile.write(b'{"choices": [')
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault in ("packed", "mispacked"):
            content = gzip.compress(self._content(fault, body, prompt, key))
            content = content if fault == "packed" else content[: len(content) // 2]
            self._send(200, content, {"Content-Encoding": "gzip"})
        else:
            self._send(200, self._content(fault, body, prompt, key))

    def _flood(self, size: int, *, packed: bool) -> None:
        """A body of so many bytes, in pieces whose number nothing says beforehand; packed, it is a thousandth of it."""
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        self._start(200, {"Transfer-Encoding": "chunked"} | ({"Content-Encoding": "gzip"} if packed else {}))
        for left in range(size, 0, -(1 << 20)):
            piece = b" " * min(left, 1 << 20)
            piece = packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) if packed else piece
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.faulty.flooded(len(piece))
        self.wfile.write(b"0\r\n\r\n")

    def _content(self, fault: str, body: dict[str, Any], prompt: str, key: str) -> bytes:
        chat, number = "messages" in body, body.get("n", 1)
        usage = {"prompt_tokens": len(tokens_of(prompt)), "completion_tokens": REPLY_TOKENS * number}
        replied = {"model": self.faulty.said_model or body["model"], "usage": usage}
        replied["choices"] = [self._choice(chat, body, prompt, index) for index in range(number)]
        for choice in replied["choices"]:
            if fault == "duplicate":
                choice["index"] = 0
            elif fault == "shapeless":
                choice.update(message="text", text={"is": "elsewhere"})
            elif fault == "filtered":
                choice["finish_reason"] = "content_filter"
            elif fault == "echo-key":
                choice.update(message={"content": f"my key is {key}"}, text=f"my key is {key}")
            elif fault == "surrogate":
                choice.update(message={"content": "half \ud800"}, text="half \ud800")
        if fault == "null":
            replied["choices"] = None
        elif fault == "none":
            replied["choices"] = []
        elif fault == "silent":
            del replied["usage"]
        elif fault == "fewer":
            replied["choices"] = replied["choices"][:1]
        content = json.dumps(replied).encode()
        unsaid = {"truncated": content[:-20], "empty": b"", "page": b"<!doctype html>"}
        unsaid |= dict.fromkeys(("silent", "mispacked"), content)
        if fault in unsaid:
            self.faulty.bill_unknown(prompt)
            return unsaid[fault]
        self.faulty.bill(usage["prompt_tokens"], usage["completion_tokens"])
        return content

    def _choice(self, chat: bool, body: dict[str, Any], prompt: str, index: int) -> dict[str, Any]:
        text = reply(prompt, index)
        choice: dict[str, Any] = {"index": index, "finish_reason": "stop"}
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            if body.get("logprobs"):
                entries = [{"token": token, "logprob": -0.5} for token in tokens_of(text)]
                choice["logprobs"] = {"content": entries}
            return choice
        whole = prompt + " and" if body.get("echo") else text
        tokens = tokens_of(whole)
        offsets = [sum(map(len, tokens[:place])) for place in range(len(tokens))]
        values = [None, *(-place / 8 for place in range(1, len(tokens)))] if body.get("echo") else [-0.5] * len(tokens)
        logprobs = {"tokens": tokens, "token_logprobs": values, "text_offset": offsets}
        return choice | {"text": whole} | ({"logprobs": logprobs} if "logprobs" in body else {})

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """One write, and out of the count before the client can know."""
        lines = [f"HTTP/1.1 {status} said", "Content-Type: application/json", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._leave()
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + content)
