"""ZOOTER: a small model reads a query and sends it to the one large model that will answer it best.

    rewards ─ targets ─ routers ─ routes ─ report

Every model's answers to the training queries are rewarded; the rewards' softmax, smoothed by tags, is what a router
learns by KL; at inference it reads the query alone, and one model answers.

Source: Lu et al. 2023, "Routing to the expert", arXiv 2311.08692.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.config import unknown_name
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.decontamination import decontaminate
from jaxrefine.data.examples import Routed
from jaxrefine.data.identity import is_held_out, number_of
from jaxrefine.data.readers import read_candidates
from jaxrefine.data.readers_routing import read_routed, routed, subsets_of, write_routed
from jaxrefine.data.tags import enhance, models_of, reward_table
from jaxrefine.evaluation.routing import MeasuredRouting, Rewarded, Routing, RoutingSettings, measure
from jaxrefine.evaluation.routing_report import print_routing_table, write_routing_report
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.selection.features import FeatureConfig
from jaxrefine.selection.router import load_router
from jaxrefine.selection.routing import best_on_average, route
from jaxrefine.selection.tagging import fit_tagger, with_tags
from jaxrefine.systems.zooter_choice import choose, kept_apart
from jaxrefine.systems.zooter_routers import Recipe, train_router
from jaxrefine.systems.zooter_sets import SETS
from jaxrefine.systems.zooter_specialists import Specialists
from jaxrefine.training.finetuning import MODEL, Finetuning
from jaxrefine.training.full_size import NamedFinetuning

OWN_SPECIALISTS, VALIDATION = "specialists", ".validation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zooter:
    """Routers on one or several sets of queries, and a report on what they do with held-out ones."""

    queries: tuple[str, ...] = ()
    """One's own files, ``FILE`` or ``NAME=FILE``, as ``read_routed`` reads them: queries with a reward of every model
    and tags. Where ``meta["split"]`` is "train" or "held_out" that holds; else queries are held out by their ids."""
    judged: tuple[str, ...] = ()
    """Files of candidates that a reward model or judge has labelled (``judged.jsonl`` of the judging configs), one
    response a model; ``meta["models"]`` names them. ``FILE`` or ``NAME=FILE``."""
    data: str = ""
    """The directory with the public data sets."""
    sets: tuple[str, ...] = ()
    """Which of them, by the names of ``zooter_sets.SETS``; without names those that are there."""
    specialists: Specialists | None = None
    """Models made here, whose answers are the rewards; None: none."""
    recipes: tuple[Recipe, ...]
    """The routers."""
    start: str = ""
    """The model directory that routers start from, a decoder or an encoder; empty: ``encoder``, from nothing."""
    encoder: EncoderConfig | None = None
    """Of a router from nothing, with a tokenizer of the training queries; ``vocab_size`` is at most so many."""
    training: Finetuning
    """Of a router; ``objective.num_models`` is taken from the queries. The direction of the KL is an option of its
    loss: "forward", KL(target ‖ router), or "reverse", as the paper prints it."""
    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    placement: Placement = dataclasses.field(default_factory=Placement)
    num_seeds: int = 1
    """Of the trained models; a linear router has none."""
    num_folds: int = 5
    """Sets of at most ``fold_limit`` queries are held out in so many parts, each routed by routers trained on the
    others, so that every query is measured; 1 is a single split."""
    fold_limit: int = 2000
    held_out_share: float = 0.25
    """Of larger sets, and of a single split."""
    validation_share: float = 0.0
    """Of the training queries: no router learns from them, and the best one there of each kind (words, models) has a
    row of its own in the report, chosen before anybody looked at the held-out queries. 0: none are kept apart."""
    ngram: int | None = None
    """Training queries that share so many words in a row with a held-out one are left out; None keeps them."""
    tagger: Literal["given", "classifier"] = "given"
    """Training queries without tags keep none, or get those that a classifier of hashed words learns from the others.
    (``zooter/tags`` asks a language model for them beforehand.)"""
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Of an answer of each model of one's own files, by name, in any unit."""
    settings: RoutingSettings = dataclasses.field(default_factory=RoutingSettings)

    def fine_tunings(self) -> list[NamedFinetuning]:
        """Of the router, if it is a model, and of the specialists."""
        found = []
        if self.start or self.encoder:
            start = self.start or self.encoder
            found.append(NamedFinetuning(name="router", training=self.training, num_candidates=0, model=start))
        if (made := self.specialists) is not None:
            start = made.start or None
            found.append(NamedFinetuning(name="specialist", training=made.training, num_candidates=1, model=start))
        return found

    def stages(self) -> list[Stage]:
        """Specialists and their answers where there are any; rewards, targets, routers, routes, report."""
        if not (self.queries or self.judged or self.data or self.specialists):
            raise ValueError("nothing to route: give yours with --queries FILE.jsonl, or --data DIRECTORY")
        for name in self.sets:
            if name not in SETS:
                raise ValueError(unknown_name(name, SETS, "set"))
        names = [recipe.name for recipe in self.recipes]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"recipes are called {', '.join(names) or 'nothing'}: at least one, each by its own name")
        if unfit := [name for name in names if not name.strip() or set(name) & set("/\\")]:
            raise ValueError(f"a recipe's name is that of a directory too; {unfit[0]!r} cannot be")
        if any(recipe.reads == "model" for recipe in self.recipes) and not (self.start or self.encoder):
            raise ValueError("a router that is a model starts from --start DIRECTORY, or from encoder's sizes")
        _named(self.queries, "--queries")  # mistakes are better noticed now
        _named(self.judged, "--judged")
        made: list[Stage] = []
        if self.specialists is not None:
            made = [
                Stage("specialists", self.train_specialists),
                Stage("answers", self.answer, inputs=("specialists",)),
            ]
        return [
            *made,
            Stage("rewards", self.gather, inputs=("answers",) if made else ()),
            Stage("targets", self.make_targets, inputs=("rewards",)),
            Stage("routers", self.train_routers, inputs=("rewards", "targets")),
            Stage("routes", self.route, inputs=("rewards", "routers")),
            Stage("report", self.report, inputs=("rewards", "routes")),
        ]

    def train_specialists(self, directory: pathlib.Path) -> None:
        """The models to route between."""
        assert self.specialists is not None
        self.specialists.train(directory, self.placement)

    def answer(self, directory: pathlib.Path) -> None:
        """Their answers to every query."""
        assert self.specialists is not None
        self.specialists.answer(input_directory(directory, "specialists"), directory, self.placement)

    def gather(self, directory: pathlib.Path) -> None:
        """Every set's queries with their rewards, and which of them are held out in each fold."""
        folds: dict[str, list[list[str]]] = {}
        for name, found in self._sets(directory):
            if name in folds:
                raise ValueError(f"two sets are called {name!r}: name yours with NAME=FILE")
            models_of(found)
            folds[name] = self._folds(name, found)
            write_routed(directory / f"{name}.jsonl", found)
            say(f"{name}: {len(found)} queries, {len(found[0].models)} models, {len(folds[name])} folds")
        write_json(directory / "folds.json", folds)

    def make_targets(self, directory: pathlib.Path) -> None:
        """Tag-based label enhancement of every fold's training queries, for each recipe."""
        summary = []
        for name, fold, train, held_out in self._splits(directory):
            train, _ = kept_apart(train, self.validation_share)
            removed = 0
            if self.ngram is not None:
                clean = decontaminate(train, {"held-out": held_out}, n=self.ngram)
                train, removed = list(clean.kept), len(clean.removed)
            if self.tagger == "classifier":
                train = with_tags(train, fit_tagger(train, self.features))
            for recipe in self.recipes:
                made = enhance(train, recipe.target)
                write_routed(directory / name / str(fold) / f"{recipe.name}.jsonl", made.queries)
                summary.append({
                    "set": name, "fold": fold, "recipe": recipe.name, "queries": len(made.queries),
                    "shared_with_held_out": removed, "tags": len(made.tags), "rare_tags": made.num_rare,
                    "untagged": made.num_untagged, "without_rewards": made.num_without_rewards,
                })  # fmt: skip
        write_json(directory / "summary.json", summary)

    def train_routers(self, directory: pathlib.Path) -> None:
        """A router for each set, fold, recipe and seed."""
        targets = input_directory(directory, "targets")
        for name, fold, _, _ in self._splits(directory):
            for recipe in self.recipes:
                queries = read_routed(targets / name / str(fold) / f"{recipe.name}.jsonl")
                for seed in range(self._seeds(recipe)):
                    train_router(
                        recipe, queries, directory / name / str(fold) / recipe.name / str(seed), start=self.start,
                        encoder=self.encoder, training=recipe.training or self.training, features=self.features,
                        placement=self.placement, seed=seed,
                    )  # fmt: skip

    def route(self, directory: pathlib.Path) -> None:
        """Every router's probabilities for the queries held out from it."""
        routers = input_directory(directory, "routers")
        for name, fold, train, held_out in self._splits(directory):
            parts = {"": held_out, VALIDATION: kept_apart(train, self.validation_share)[1]}
            for recipe in self.recipes:
                found: dict[str, list] = {ending: [] for ending, queries in parts.items() if queries}
                for seed in range(self._seeds(recipe)):
                    router = load_router(
                        _model(routers / name / str(fold) / recipe.name / str(seed), recipe), self.placement
                    )
                    for ending, tables in found.items():
                        tables.append(router.probabilities([query.prompt for query in parts[ending]]).tolist())
                for ending, tables in found.items():
                    write_json(directory / name / str(fold) / f"{recipe.name}{ending}.json", tables)

    def report(self, directory: pathlib.Path) -> None:
        """All baselines, routers and the oracle on the held-out queries."""
        measured = self.measured(directory)
        print_routing_table(measured)
        sweep = {recipe.sweep: recipe.name for recipe in self.recipes if recipe.sweep}
        notes = [f"**{found.name}**: {_described(found.name)}." for found in measured]
        notes += [f"**{name}**: {line}" for name, line in self._choices(directory)]
        path = write_routing_report(
            measured, self.settings, directory, sweep=sweep, title="Routing by reward distillation", notes=notes
        )
        say(f"report: {path}")

    def measured(self, directory: pathlib.Path) -> list[MeasuredRouting]:
        """Each set as `routing.measure` sees it, all folds together."""
        routes = input_directory(directory, "routes")
        return [self._measured(name, found, routes / name) for name, found in self._parts(directory).items()]

    def _measured(
        self, name: str, parts: Sequence[tuple[int, list[Routed], list[Routed]]], routes: pathlib.Path
    ) -> MeasuredRouting:
        queries = [query for _, _, held_out in parts for query in held_out]
        best = [best_on_average(reward_table(train)) for _, train, held_out in parts for _ in held_out]
        models, rewards = models_of(queries), reward_table(queries)
        known = self.costs or (SETS[name].costs if name in SETS else {})
        held = Rewarded(
            name=name,
            models=models,
            rewards=rewards,
            subsets=tuple(subsets_of(query) for query in queries),
            best=tuple(best),
            costs=tuple(known[model] for model in models) if set(models) <= set(known) else (),
        )
        routings = {
            recipe.name: _routing(routes, [(fold, recipe.name) for fold, _, _ in parts]) for recipe in self.recipes
        }
        routings |= {
            f"{kind}, chosen on validation": _routing(routes, names)
            for kind, names in self._chosen(parts, routes).items()
        }
        for judge in dict.fromkeys(judge for query in queries for judge in query.meta.get("scores", {})):
            scores = [query.meta.get("scores", {}).get(judge, [None] * len(models)) for query in queries]
            ranked = np.array([[np.nan if one is None else float(one) for one in row] for row in scores])
            routings[f"ranking by {judge}"] = Routing(
                assignments=(route(ranked, where=~np.isnan(rewards)),), answers=len(models)
            )
        return measure(held, routings, self.settings)

    def _chosen(
        self, parts: Sequence[tuple[int, list[Routed], list[Routed]]], routes: pathlib.Path
    ) -> dict[str, list[tuple[int, str]]]:
        """(fold, recipe) by kind of router, of each fold the best on the training queries that were kept apart."""
        found: dict[str, list[tuple[int, str]]] = {}
        for kind, reads in (("words", "features"), ("model", "model")):
            names = [recipe.name for recipe in self.recipes if recipe.reads == reads]
            if not self.validation_share or len(names) < 2:
                continue
            for fold, train, _ in parts:
                queries = kept_apart(train, self.validation_share)[1]
                tables = {
                    name: np.array(read_json(routes / str(fold) / f"{name}{VALIDATION}.json"), np.float64)
                    for name in names
                }
                found.setdefault(kind, []).append((fold, choose(queries, tables)))
        return found

    def _choices(self, directory: pathlib.Path) -> Iterator[tuple[str, str]]:
        """(set, what was chosen)."""
        routes = input_directory(directory, "routes")
        for name, parts in self._parts(directory).items():
            for kind, chosen in self._chosen(parts, routes / name).items():
                yield name, f"of the {kind} routers validation chose {', '.join(recipe for _, recipe in chosen)}."

    def _parts(self, directory: pathlib.Path) -> dict[str, list[tuple[int, list[Routed], list[Routed]]]]:
        """(fold, training queries, held-out queries) of each set."""
        parts: dict[str, list[tuple[int, list[Routed], list[Routed]]]] = {}
        for name, fold, train, held_out in self._splits(directory):
            parts.setdefault(name, []).append((fold, train, held_out))
        return parts

    def _sets(self, directory: pathlib.Path) -> Iterator[tuple[str, list[Routed]]]:
        if self.specialists is not None:
            yield OWN_SPECIALISTS, self.specialists.queries(input_directory(directory, "answers"))
        for name, file in _named(self.queries, "--queries"):
            yield name, read_routed(file)
        for name, file in _named(self.judged, "--judged"):
            yield name, [routed(example) for example in read_candidates(file)]
        if self.data:
            root = pathlib.Path(self.data)
            there = [name for name, public in SETS.items() if (root / public.directory).is_dir()]
            if missing := [name for name in self.sets if name not in there]:
                raise ValueError(f"{missing[0]}: {root / SETS[missing[0]].directory} is not there")
            if not there:
                raise ValueError(f"{self.data}: none of the public sets is there: {', '.join(SETS)}")
            for name in self.sets or there:
                yield name, SETS[name].read(root)

    def _folds(self, name: str, queries: Sequence[Routed]) -> list[list[str]]:
        """Ids that are held out, one list a fold."""
        split = {query.meta.get("split") for query in queries}
        if split & {"train", "held_out"}:
            if split != {"train", "held_out"}:
                raise ValueError(f"{name}: meta.split must be train or held_out everywhere, or nowhere; found {split}")
            return [[query.id for query in queries if query.meta["split"] == "held_out"]]
        if self.num_folds > 1 and len(queries) <= self.fold_limit:
            folds: list[list[str]] = [[] for _ in range(self.num_folds)]
            for query in queries:
                folds[number_of(query.id) % self.num_folds].append(query.id)
        else:
            folds = [[query.id for query in queries if is_held_out(query.id, self.held_out_share)]]
        if not all(0 < len(fold) < len(queries) for fold in folds):
            raise ValueError(f"{name}: {len(queries)} queries are too few for {len(folds)} folds")
        return folds

    def _splits(self, directory: pathlib.Path) -> Iterator[tuple[str, int, list[Routed], list[Routed]]]:
        """(set, fold, training queries, held-out queries)."""
        rewards = input_directory(directory, "rewards")
        for name, folds in read_json(rewards / "folds.json").items():
            queries = read_routed(rewards / f"{name}.jsonl")
            for number, ids in enumerate(folds):
                held = set(ids)
                yield (
                    name,
                    number,
                    [query for query in queries if query.id not in held],
                    [query for query in queries if query.id in held],
                )

    def _seeds(self, recipe: Recipe) -> int:
        return self.num_seeds if recipe.reads == "model" else 1


def _model(directory: pathlib.Path, recipe: Recipe) -> pathlib.Path:
    return directory if recipe.reads == "features" else directory / MODEL


def _routing(routes: pathlib.Path, names: Sequence[tuple[int, str]]) -> Routing:
    """What the routers of these (fold, recipe) do with the queries held out from them."""
    folds = [np.asarray(read_json(routes / str(fold) / f"{name}.json"), np.float64) for fold, name in names]
    table = np.concatenate(folds, axis=1)
    return Routing(assignments=tuple(route(seed) for seed in table), probabilities=table.mean(0))


def _described(name: str) -> str:
    if name in SETS:
        costs = f"; costs are {SETS[name].costs_are}" if SETS[name].costs else ""
        return f"rewards are {SETS[name].rewards}{costs}"
    return "rewards are " + ("the share of right answers" if name == OWN_SPECIALISTS else "those of the file")


def _named(files: Sequence[str], flag: str) -> list[tuple[str, pathlib.Path]]:
    """(name, file) of each; a file alone gives its name."""
    found: list[tuple[str, pathlib.Path]] = []
    for given in files:
        name, equals, file = given.rpartition("=")
        path = pathlib.Path(file)
        name = name if equals else path.name.split(".")[0]
        if not name or not file or set(name) & set("/\\"):
            raise ValueError(f"{flag} {given!r}: FILE or NAME=FILE is wanted")
        if name in [known for known, _ in found]:
            raise ValueError(f"{flag} {given!r}: {name} is named twice")
        found.append((name, path))
    return found
