"""Bodies that an endpoint sends, counted while they come in: one that is too long, packed or not, is not held."""

from __future__ import annotations

import functools
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

ACCEPTED = {"Accept-Encoding": "gzip"}
"""What a request says of packing: only what can be unpacked piece by piece, so that a small body cannot become a huge
one at once."""
_PACKED = ("gzip", "x-gzip", "deflate")


class RefusedBodyError(Exception):
    """A body that is too long, or packed in another way than was asked for."""


class BrokenBodyError(RefusedBodyError):
    """A packed body that cannot be unpacked; another attempt may bring a whole one."""


def limited(longest: int) -> Callable[[Any], Awaitable[None]]:
    """A response hook of httpx: the body comes unpacked, and raises ``RefusedBodyError`` beyond so many bytes.

    Args:
      longest: bytes.

    >>> import asyncio, types
    >>> response = types.SimpleNamespace(headers={"content-length": "5"})
    >>> asyncio.run(limited(4)(response))
    Traceback (most recent call last):
    jaxrefine.sampling.endpoint_body.RefusedBodyError: the reply is of 5 bytes, and 4 are allowed (reply_bytes)
    """

    async def hook(response: Any) -> None:
        declared = response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > longest:
            raise RefusedBodyError(f"the reply is of {declared[:20]} bytes, and {longest} are allowed (reply_bytes)")
        packing = response.headers.get("content-encoding", "").strip().lower()
        if packing not in ("", "identity", *_PACKED):
            raise RefusedBodyError(f"the reply is packed as {packing[:40]!r}, and was asked for as {_PACKED[0]}")
        if packing in _PACKED:
            del response.headers["content-encoding"]  # from here on it is not
        # httpx and its successor, of which openai has one or the other, each ask for a stream of their own class
        base = next(kind for kind in type(response.stream).__mro__ if kind.__name__ == "AsyncByteStream")
        response.stream = _stream_class(base)(response.stream, longest, packed=packing in _PACKED)

    return hook


@functools.cache
def _stream_class(base: type) -> type:
    return type("LimitedStream", (_Limited, base), {})


class _Limited:
    def __init__(self, stream: Any, longest: int, *, packed: bool) -> None:
        self._stream, self._longest = stream, longest
        # 32 + 15: gzip or zlib, as the first bytes say
        self._unpacking = zlib.decompressobj(32 + zlib.MAX_WBITS) if packed else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = received = 0
        async for piece in self._stream:
            received += len(piece)
            unpacked = self._unpacked(piece, self._longest + 1 - size)
            size += len(unpacked)
            if size > self._longest:
                raise RefusedBodyError(f"the reply is longer than {self._longest} bytes (reply_bytes)")
            yield unpacked
        if received and self._unpacking is not None and not self._unpacking.eof:
            raise BrokenBodyError("the reply is packed, and breaks off before its end")

    def _unpacked(self, piece: bytes, room: int) -> bytes:
        if self._unpacking is None:
            return piece
        try:
            return self._unpacking.decompress(piece, room)
        except zlib.error as error:
            raise BrokenBodyError(f"the reply is packed, and broken: {error}") from error

    async def aclose(self) -> None:
        await self._stream.aclose()
