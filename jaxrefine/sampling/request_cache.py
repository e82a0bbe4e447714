"""Replies on disk by the content of what was asked, so that nothing is paid for twice."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from jaxrefine.artefacts.journal import Journal
from jaxrefine.sampling.responder import Failure, Reply


class ReplyCache:
    """An append-only journal of replies (and of refusals by the model itself), one a key; all of them in memory.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "replies.jsonl"
    >>> ReplyCache(path).put("a", Reply(text=" 4", logprobs=(-0.5,)))
    >>> ReplyCache(path).get("a")
    Reply(text=' 4', finished=True, tokens=None, logprobs=(-0.5,), prompt_tokens=0, reply_tokens=0, cost=0.0, model='')
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._journal = Journal(path)
        self._kept = {str(key): _result(record, str(path)) for key, record in self._journal.records().items()}

    def __len__(self) -> int:
        """Number of replies kept."""
        return len(self._kept)

    def get(self, key: str) -> Reply | Failure | None:
        """What was kept under a key; its ``cost`` is what was paid then."""
        return self._kept.get(key)

    def put(self, key: str, result: Reply | Failure) -> None:
        """Keeps a result; it survives the death of the process at once."""
        name = "reply" if isinstance(result, Reply) else "failure"
        self._journal.append(key, {name: dataclasses.asdict(result)})
        self._kept[key] = result

    def sync(self) -> None:
        """Forces what was kept to the disk itself."""
        self._journal.sync()

    def close(self) -> None:
        """Syncs and closes the file."""
        self._journal.close()


def _result(record: dict[str, Any], where: str) -> Reply | Failure:
    [(name, fields)] = record.items()
    fields = {field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()}
    try:
        return Reply(**fields) if name == "reply" else Failure(**fields)
    except TypeError as error:
        raise ValueError(f"{where}: a {name} of another version of jaxrefine: {error}") from error
