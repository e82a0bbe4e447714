"""The whole of ZOOTER on queries whose words decide: targets, routers, held-out routes, report; its parts by hand."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from jaxrefine import cli, config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.data.examples import SAID, Candidates, Routed
from jaxrefine.data.readers import write_candidates
from jaxrefine.data.readers_routing import read_routed, write_routed
from jaxrefine.data.tags import LabelEnhancement
from jaxrefine.evaluation.routing import CONTROL, ORACLE, RoutingSettings
from jaxrefine.models.encoder_config import EncoderConfig, RelativePositions
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.selection.features import FeatureConfig
from jaxrefine.systems.zooter import Recipe, Zooter
from jaxrefine.systems.zooter_choice import choose, kept_apart, mean_reward
from jaxrefine.systems.zooter_sets import shared_words
from jaxrefine.systems.zooter_specialists import Specialists
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.full_size import full_size

VERBS = ("double", "halve")
TRAINING = Finetuning(
    objective=ObjectiveConfig(loss="reward_distillation", scorer="router", num_models=2),
    steps=2, groups_per_step=4, max_prompt=16, slots=32, checkpoints=None,
)  # fmt: skip
ENCODER = EncoderConfig(
    vocab_size=300, width=8, num_layers=1, num_heads=1, head_width=8, hidden_width=8, max_positions=32
)


def made(count: int = 24, *, split: bool = True) -> list[Routed]:
    """A query to double is answered by the first model alone, one to halve by the second; a third is held out."""
    queries = []
    for number in range(count):
        verb = VERBS[number % 2]
        meta: dict[str, Any] = {"subsets": [verb], "scores": {"judge": [0.2, 0.1]}}
        if split:
            meta["split"] = "held_out" if number % 6 < 2 else "train"
        rewards = (1.0, 0.0) if verb == "double" else (0.0, 1.0)
        queries.append(Routed(f"q{number}", f"{verb} the {number}", ("x", "y"), rewards, (verb,), meta))
    return queries


def job(tmp_path: pathlib.Path, queries: Sequence[Routed], **options: Any) -> Zooter:
    write_routed(tmp_path / "own.jsonl", queries)
    recipes = (
        Recipe(name="words", target=LabelEnhancement(beta=0.3), reads="features", sweep="0.3"),
        Recipe(name="hard", target=LabelEnhancement(form="hard", beta=1.0), reads="features", sweep="hard"),
    )
    given = {
        "queries": (str(tmp_path / "own.jsonl"),),
        "recipes": recipes,
        "training": TRAINING,
        "features": FeatureConfig(num_features=64, penalties=(1e-3,), max_iterations=30),
        "settings": RoutingSettings(num_resamples=30),
    }
    return Zooter(**(given | options))


def run(zooter: Zooter, directory: pathlib.Path) -> dict[str, Any]:
    run_stages(zooter.stages(), directory, zooter)
    [found] = json.loads(next(directory.glob("*-report/metrics.json")).read_text())["sets"]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, Any]]:
    """A run with two linear routers, and an encoder from nothing that takes two steps."""
    directory = tmp_path_factory.mktemp("zooter")
    zooter = job(directory, made(), costs={"x": 1.0, "y": 2.0}, encoder=ENCODER)
    zooter = dataclasses.replace(zooter, recipes=(*zooter.recipes, Recipe(name="encoder")))
    return directory / "run", run(zooter, directory / "run")


def test_routers_of_words_that_decide_reach_the_oracle(finished: tuple[pathlib.Path, dict[str, Any]]) -> None:
    """Four held-out queries of each verb: a single model has 1/2, the oracle 1."""
    systems = finished[1]["systems"]
    assert finished[1]["subsets"] == {"double": 4, "halve": 4}
    assert systems["x"]["mean"]["value"] == systems[CONTROL]["mean"]["value"] == 0.5
    for name in ("words", "hard", ORACLE):
        assert systems[name]["mean"]["value"] == 1.0
        assert (systems[name]["mean_rank"]["value"], systems[name]["uplift"]) == (1.0, 1.0)
    assert systems["words"]["gap"] == 1.0
    assert systems["ranking by judge"]["shares"] == {"x": 1.0, "y": 0.0}
    assert (systems["ranking by judge"]["answers"], systems["words"]["answers"]) == (2, 1)
    assert finished[1]["cost_curves"]["words"][-1] == [1.0, 0.5]


def test_the_report_has_the_sweep_and_every_system(finished: tuple[pathlib.Path, dict[str, Any]]) -> None:
    text = next(finished[0].glob("*-report/report.md")).read_text()
    assert "| β | 0.3 | hard |" in text
    for name in (*finished[1]["systems"], "figures/sweep.png", "figures/cost.png"):
        assert name in text


def test_targets_are_smoothed_by_the_tag(finished: tuple[pathlib.Path, dict[str, Any]]) -> None:
    """All queries of a tag have equal rewards, so smoothing leaves them: log 0.731 and log 0.269."""
    found = read_routed(next(finished[0].glob("*-targets")) / "own/0/words.jsonl")
    assert len(found) == 16
    assert found[0].rewards == pytest.approx((-0.313262, -1.313262), rel=1e-5)


def test_a_trained_router_answers_the_command_line(
    finished: tuple[pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    routers = next(finished[0].glob("*-routers")) / "own/0"
    assert cli.main(["route", str(routers / "words/0"), "double the 99"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  x")
    assert second.endswith("  y")
    assert float(first.split()[0]) + float(second.split()[0]) == pytest.approx(1.0, abs=1e-3)
    (tmp_path / "queries.txt").write_text("halve the 7\ndouble it\n")
    assert cli.main(["route", str(routers / "words/0"), "--file", str(tmp_path / "queries.txt")]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["id"], record["model"]) for record in records] == [("1", "y"), ("2", "x")]
    assert cli.main(["route", str(routers / "encoder/0/model"), "double the 99"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    (tmp_path / "queries.txt").write_text("halve the 7\n\n")
    for words in (["--file", str(tmp_path / "queries.txt")], [" "], []):
        assert cli.main(["route", str(routers / "words/0"), *words]) == cli.USAGE_ERROR
    errors = capsys.readouterr().err
    assert "queries.txt:2: an empty line" in errors
    assert "query 0 is empty" in errors
    assert "route wants ROUTER and QUERY" in errors


def test_every_query_of_a_small_set_is_held_out_once(tmp_path: pathlib.Path) -> None:
    zooter = job(tmp_path, made(split=False), num_folds=3)
    assert run(zooter, tmp_path / "run")["num_queries"] == 24
    folds = json.loads(next((tmp_path / "run").glob("*-rewards/folds.json")).read_text())["own"]
    assert sorted(id for fold in folds for id in fold) == sorted(query.id for query in made())
    assert len(folds) == 3


def test_judged_candidates_are_routed_by_their_labels(tmp_path: pathlib.Path) -> None:
    judged = [
        Candidates(
            query.id,
            query.prompt,
            ("a", "b"),
            tuple(map(float, query.rewards)),
            meta={"models": ["x", "y"], **query.meta},
        )
        for query in made()
    ]
    write_candidates(tmp_path / "judged.jsonl", judged)
    zooter = dataclasses.replace(job(tmp_path, made()), queries=(), judged=(f"mine={tmp_path / 'judged.jsonl'}",))
    run_stages(zooter.stages()[:1], tmp_path / "run", zooter)
    found = read_routed(tmp_path / "run/01-rewards/mine.jsonl")
    assert [(query.models, query.rewards) for query in found] == [(query.models, query.rewards) for query in made()]


def test_training_queries_that_share_words_with_held_out_ones_are_left_out(tmp_path: pathlib.Path) -> None:
    """The one to double 6 is held out; a training query is its copy, and nothing else shares three words."""
    queries = made()
    queries[4] = dataclasses.replace(queries[4], prompt="Double the 6!")
    zooter = job(tmp_path, queries, ngram=3)
    run_stages(zooter.stages()[:2], tmp_path / "run", zooter)
    first = json.loads((tmp_path / "run/02-targets/summary.json").read_text())[0]
    assert (first["shared_with_held_out"], first["queries"]) == (1, 15)


def test_untagged_training_queries_are_tagged_by_a_classifier(tmp_path: pathlib.Path) -> None:
    """Of 16 training queries one has no tag; its words say which it is."""
    queries = made()
    queries[3] = dataclasses.replace(queries[3], tags=())
    for tagger, untagged in (("given", 1), ("classifier", 0)):
        zooter = job(tmp_path, queries, tagger=tagger)
        run_stages(zooter.stages()[:2], tmp_path / tagger, zooter)
        first = json.loads((tmp_path / tagger / "02-targets/summary.json").read_text())[0]
        assert first["untagged"] == untagged
        if tagger == "classifier":
            targets = read_routed(tmp_path / tagger / "02-targets/own/0/words.jsonl")
            assert next(query for query in targets if query.id == "q3").tags == ("halve",)


def test_rewards_of_specialists_are_the_shares_of_their_right_answers(tmp_path: pathlib.Path) -> None:
    """The answers are written here: one right, one wrong, one without an end."""
    specialists = Specialists(operations=("addition", "division"), num_queries=1, num_held_out=1, training=TRAINING)
    problems = [*specialists._queries(), *specialists._held_out()]
    for name, endings in (("addition", ("", "0")), ("division", ("0", ""))):
        answers = [
            Candidates(one.id, "?", (f"#### {one.answer}{ending}", "I give up"), (0.0, 0.0), str(one.answer),
                       meta={SAID: [{"logprob": -2.0, "tokens": 4}, {"logprob": -3.0, "tokens": 2}]})
            for one, ending in zip(problems, endings, strict=True)
        ]  # fmt: skip
        write_candidates(tmp_path / name / "candidates.jsonl", answers)
    first, second = specialists.queries(tmp_path)
    assert (first.rewards, second.rewards) == ((0.5, 0.0), (0.0, 0.5))
    assert (first.meta["split"], second.meta["split"]) == ("train", "held_out")
    assert first.meta["scores"] == {"likelihood": [-1.0, -1.0]}
    assert first.tags[:2] == (problems[0].tags.operations[-1], f"{problems[0].tags.num_steps} steps")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": ()}, "give yours with --queries FILE.jsonl"),
        ({"queries": ("a=x.jsonl", "a=y.jsonl")}, "a is named twice"),
        ({"queries": ("=x.jsonl",)}, "FILE or NAME=FILE is wanted"),
        ({"sets": ("alpaca",)}, "did you mean 'alpaca_eval'"),
        ({"recipes": ()}, "at least one, each by its own name"),
        ({"recipes": (Recipe(name="a/b", reads="features"),)}, "'a/b' cannot be"),
        ({"recipes": (Recipe(name="model"),)}, "starts from --start DIRECTORY, or from encoder's sizes"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(
    tmp_path: pathlib.Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(job(tmp_path, made()), **options).stages()


def test_half_a_split_is_refused(tmp_path: pathlib.Path) -> None:
    queries = made()
    queries[0] = dataclasses.replace(queries[0], meta={})
    zooter = job(tmp_path, queries)
    with pytest.raises(ValueError, match=r"own: meta\.split must be train or held_out everywhere"):
        run_stages(zooter.stages(), tmp_path / "run", zooter)


def test_words_shared_with_a_reference_by_hand() -> None:
    """the cat sat / the the dog: 1 of 3 and 1 of 3 words."""
    assert shared_words("The cat sat.", "the the dog") == pytest.approx(1 / 3)
    assert shared_words("a", "") == shared_words("", "") == 0.0


@pytest.mark.parametrize("name", ["zooter/tiny", "zooter/real", "zooter/published"])
def test_a_shipped_configs_sweep_has_the_papers_values(name: str) -> None:
    found = config.load(name)
    assert isinstance(found, Zooter)
    betas = [recipe.target.beta for recipe in found.recipes if recipe.sweep and recipe.target.form == "softmax"]
    assert betas == [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]


def test_the_published_router_fits_together_at_full_size() -> None:
    """mDeBERTa-v3-base: layers of 4·(768² + 768) + 2·768·3072 + 3072 + 768 + 4·768, tables of 251,000 and 512 rows."""
    published = config.load("zooter/published")
    assert (published.training.optimizer.learning_rate, published.training.optimizer.weight_decay) == (1e-5, 5e-7)
    assert published.training.epochs == 5.0
    mdeberta = EncoderConfig(
        vocab_size=251_000, width=768, num_layers=12, num_heads=12, head_width=64, hidden_width=3072,
        norm_eps=1e-7, positions="none",
        relative=RelativePositions(max_distance=512, num_buckets=256, shared_projections=True, norm=True),
    )  # fmt: skip
    found = full_size(published.training, mdeberta, num_candidates=0)
    assert found.num_params == 12 * 7_087_872 + (251_000 + 512) * 768 + 4 * 768
    assert found.num_trained == found.num_params + 6 * 768
    assert "loss" in found.metrics


def test_of_each_kind_the_best_on_training_queries_kept_apart_is_told_and_learns_from_the_others(
    tmp_path: pathlib.Path,
) -> None:
    """Targets without any difference between the models teach nothing, so those with one are chosen."""
    right = Recipe(name="words", target=LabelEnhancement(beta=0.3), reads="features")
    level = Recipe(name="level", target=LabelEnhancement(beta=1.0, temperature=1e6), reads="features")
    zooter = job(tmp_path, made(48), recipes=(level, right), validation_share=0.4)
    systems = run(zooter, tmp_path / "run")["systems"]
    assert systems["words"]["mean"]["value"] == systems["words, chosen on validation"]["mean"]["value"] == 1.0
    assert "model, chosen on validation" not in systems
    text = next((tmp_path / "run").glob("*-report/report.md")).read_text()
    assert "of the words routers validation chose words." in text
    learned = read_routed(next((tmp_path / "run").glob("*-targets")) / "own/0/words.jsonl")
    kept = json.loads(next((tmp_path / "run").glob("*-routes/own/0/words.validation.json")).read_text())
    assert len(learned) + len(kept[0]) == 32  # two thirds of 48 are not held out
    assert 0 < len(kept[0]) < 32


def test_a_router_is_chosen_by_the_rewards_of_the_models_it_prefers() -> None:
    queries = [
        Routed("1", "a", ("x", "y"), (1.0, 0.0)), Routed("2", "b", ("x", "y"), (0.25, 0.75)),
        Routed("3", "c", ("x", "y"), (None, None)),
    ]  # fmt: skip
    first, second = [[0.9, 0.1]] * 3, [[0.1, 0.9]] * 3
    assert mean_reward(queries, np.array([first])) == pytest.approx((1.0 + 0.25) / 2)
    assert mean_reward(queries, np.array([first, second])) == pytest.approx((0.625 + 0.375) / 2)
    assert choose(queries, {"x": np.array([first]), "same": np.array([first]), "y": np.array([second])}) == "x"
    with pytest.raises(ValueError, match="of 2 training queries leaves none on one side"):
        kept_apart(queries[:2], 1e-9)
