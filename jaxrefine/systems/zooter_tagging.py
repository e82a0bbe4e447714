"""Tags for a file of queries: a language model, here or behind an endpoint, is asked what each of them is about."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress, say
from jaxrefine.artefacts.stages import Stage
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.data.jsonl import write_jsonl
from jaxrefine.data.readers_routing import read_routed, write_routed
from jaxrefine.judging.tagging import TaggingConfig, tag_queries
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.local_responder import LocalResponder
from jaxrefine.sampling.redaction import read_secret
from jaxrefine.sampling.responder import Responder

TAGGED, FAILED, SUMMARY = "tagged.jsonl", "failed.jsonl", "summary.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagging:
    """A job; stopped at any instant, the same command goes on and asks for no query twice."""

    queries: str = ""
    """A ``.jsonl`` file, as ``read_routed`` reads it; tags in it are replaced."""
    model: str = ""
    """A Hugging Face directory with its tokenizer: it goes on with the prompt as plain text. "" asks ``endpoint``."""
    endpoint: EndpointConfig
    """Where the model is otherwise, and what it may cost."""
    keep: str = "runs/zooter/replies"
    """Directory of the endpoint's replies and ledger."""
    tagging: TaggingConfig = dataclasses.field(default_factory=TaggingConfig)
    per_round: int = 256
    """Queries that are asked for together; what is known of a round is kept."""
    slots: int = 64
    """Replies of a model here that grow at once."""
    placement: Placement = dataclasses.field(default_factory=Placement)
    """Where a model here computes."""

    def stages(self) -> list[Stage]:
        """One.

        Raises:
            ValueError: no queries, no such model, or no queries a round.
        """
        if not pathlib.Path(self.queries).expanduser().is_file():
            raise ValueError(f"queries: there is no file {self.queries!r}; give yours with --queries FILE.jsonl")
        if self.model and not pathlib.Path(self.model).expanduser().is_dir():
            raise ValueError(f"model: there is no directory {self.model!r}; give yours with --model DIRECTORY")
        if self.per_round < 1:
            raise ValueError(f"per_round = {self.per_round} must be at least 1")
        if not self.model:
            read_secret(self.endpoint.api_key_env)  # missing, it is better noticed now
        return [Stage("tags", self.tag)]

    def tag(self, directory: pathlib.Path) -> None:
        """Writes ``tagged.jsonl``, ``failed.jsonl`` (queries without tags, and why) and ``summary.json``."""
        queries = read_routed(pathlib.Path(self.queries).expanduser())
        with Journal(directory / "asked.jsonl") as journal, self._open() as (responder, config):
            missing = [query for query in queries if query.id not in journal]
            with progress(len(queries), "tags", initial=len(queries) - len(missing), unit="queries") as bar:
                for start in range(0, len(missing), self.per_round):
                    part = tag_queries(missing[start : start + self.per_round], responder, config)
                    for query in part.queries:
                        record = {"tags": list(query.tags), "failed": part.failed.get(query.id)}
                        journal.append(query.id, record)
                        bar.advance()
            known = journal.records()
        tagged = [dataclasses.replace(query, tags=tuple(known[query.id]["tags"])) for query in queries]
        failed = {query.id: known[query.id]["failed"] for query in queries if known[query.id]["failed"] is not None}
        counts = collections.Counter(tag for query in tagged for tag in query.tags)
        write_routed(directory / TAGGED, tagged)
        write_jsonl(directory / FAILED, [{"id": id, "reason": reason} for id, reason in failed.items()])
        summary = {
            "queries": len(queries),
            "failed": len(failed),
            "model": responder.name,
            "tags": dict(counts.most_common()),
        }
        write_json(directory / SUMMARY, summary)
        say(f"{len(queries) - len(failed)} of {len(queries)} queries have tags, {len(counts)} different ones")

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Responder, TaggingConfig]]:
        """The model, and how it is asked: one that is here has no chat form that is known."""
        if not self.model:
            with Endpoint(self.endpoint, self.keep) as endpoint:
                yield endpoint, self.tagging
            return
        model = load_model(pathlib.Path(self.model).expanduser(), self.placement)
        asking = dataclasses.replace(self.tagging.asking, style="completion")
        yield (
            LocalResponder(
                model.model, model.params, model.tokenizer, name=model.directory.resolve().name, version=model.digest,
                max_new_tokens=asking.max_tokens, slots=self.slots, columns=1, mesh=model.mesh,
            ),
            dataclasses.replace(self.tagging, asking=asking),
        )  # fmt: skip
