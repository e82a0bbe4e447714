"""Files of candidates are judged by the command line's own stages, and a stopped or unanswered job goes on."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import StageError, run_stages
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_candidates
from jaxrefine.data.tokenizer import train_tokenizer
from jaxrefine.judging.likelihood import said_by_teacher
from jaxrefine.judging.provenance import provenance_of
from jaxrefine.models.config import TransformerConfig
from jaxrefine.sampling.responder import Failure, Reply
from jaxrefine.systems import judging
from tests.judging.scripted import Scripted, judgement, random_params, shown

MODEL = TransformerConfig(
    vocab_size=262, width=16, num_layers=1, num_heads=4, num_kv_heads=2, head_width=4, hidden_width=24
)


@dataclasses.dataclass(frozen=True)
class Spent:
    cost: float = 0.0


class Opened(Scripted):
    """A scripted model that is opened and closed as an endpoint is."""

    spending = Spent()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def answered_by(monkeypatch, answer):
    responder = Opened(answer)
    monkeypatch.setattr(judging, "Endpoint", lambda config, workdir: responder)
    return responder


def write(path, *texts):
    lines = [
        json.dumps({"id": str(n), "prompt": f"Say {n}.", "candidates": [{"text": text} for text in pair]})
        for n, pair in enumerate(texts)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def run(job, workdir):
    run_stages(job.stages(), workdir, job)
    directory = workdir / "02-labels"
    return read_candidates(directory / "judged.jsonl"), json.loads((directory / "summary.json").read_text())


def by_length(request):
    return judgement({name: (min(len(text), 5), 0, 0) for name, text in shown(request).items()})


def longer(request):
    first, second = map(len, shown(request).values())
    return f"Verdict: {1 if first > second else 2}"


def save_model(directory):
    train_tokenizer(["Say it."] * 2, vocab_size=262).save(directory / "tokenizer")
    kernel = np.random.default_rng(3).normal(size=(1, 16)).astype(np.float32)
    return save_pretrained(
        directory / "model", MODEL, random_params(MODEL), tokenizer_dir=directory / "tokenizer",
        scorer={"kernel": kernel}, scorer_config={"scorer": "reward"},
    )  # fmt: skip


def test_a_reward_model_judges_a_file(tmp_path):
    source, model = write(tmp_path / "in.jsonl", ("a", "bb"), ("c",)), save_model(tmp_path)
    job = dataclasses.replace(config.load("judging/reward"), candidates=source, model=str(model), num_devices=1)
    found, summary = run(job, tmp_path / "run")
    assert [len(example.labels) for example in found] == [2, 1]
    assert found[0].labels[0] != found[0].labels[1]
    assert provenance_of(found[0]).model == "model"
    assert (summary["judged"], summary["sources"][0]["judge"]) == (2, "reward model")
    assert not (tmp_path / "run" / "02-labels" / "judged.jsonl.journal").exists()


def test_a_model_compares_pairs_by_the_likeliest_verdict(tmp_path):
    source, model = write(tmp_path / "in.jsonl", ("a", "bb"), ("c", "d")), save_model(tmp_path)
    (tmp_path / "mine.toml").write_text('user = "{instruction}|{first}|{second}|"\n')
    job = dataclasses.replace(
        config.load("judging/likelihood"), judge="pairwise", candidates=source, model=str(model), num_devices=1,
        prompt=str(tmp_path / "mine.toml"), fenced=False,
    )  # fmt: skip
    found, summary = run(job, tmp_path / "run")
    pairs = summary["pairs"]
    assert pairs["pairs"] == pairs["first"] + pairs["second"] + pairs["tie"] == len(found) == 2
    settings = provenance_of(found[0]).settings
    assert (settings["by"], settings["tie"], settings["max_prompt"]) == ("likelihood", " tie", 1024)


def test_an_evaluator_is_a_judge_of_any_candidates(tmp_path):
    model = save_model(tmp_path)
    judge = dataclasses.replace(config.load("judging/verdict"), model=str(model), num_devices=1).make_judge()
    assert judge.provenance.judge == "verdict"
    assert judge.provenance.settings["words"] == [" correct", " incorrect"]


def test_a_contextual_judge_judges_a_file_and_its_bias_by_place_is_in_the_summary(tmp_path, monkeypatch):
    answered_by(monkeypatch, by_length)
    job = dataclasses.replace(
        config.load("judging/contextual"), candidates=write(tmp_path / "in.jsonl", ("a", "bbb"), ("c",))
    )
    found, summary = run(job, tmp_path / "run")
    assert [example.labels for example in found] == [(1.0, 3.0)]
    assert provenance_of(found[0]).judge == "contextual"
    assert summary["unjudged"] == {"refused": 1, "unparsable": 0, "unanswered": 0}
    assert sorted(summary["judgements"]["sum_by_place"]) == [1.0, 3.0]


def test_a_pairwise_judge_judges_a_file_and_its_rates_are_in_the_summary(tmp_path, monkeypatch):
    answered_by(monkeypatch, lambda request: "Verdict: 1" if "x" in shown(request).values() else longer(request))
    source = write(tmp_path / "in.jsonl", ("a", "bbb", "cc"), ("x", "yy"))
    found, summary = run(dataclasses.replace(config.load("judging/pairwise"), candidates=source), tmp_path / "run")
    assert [example.labels for example in found] == [(0.0, 1.0, 0.5), (0.5, 0.5)]
    assert (summary["pairs"]["pairs"], summary["pairs"]["reversed"], summary["pairs"]["conflict_rate"]) == (4, 1, 0.25)


def test_malformed_lines_stop_a_job_or_are_set_aside_where_some_are_allowed(tmp_path, monkeypatch):
    answered_by(monkeypatch, by_length)
    given = write(tmp_path / "c.jsonl", ("a", "bb"), ("ccc", "d"))
    with open(given, "a") as file:
        file.write('{"id": "2", "prompt": 3, "candidates": []}\n')
    job = dataclasses.replace(config.load("judging/contextual"), candidates=given)
    with pytest.raises(ValueError, match=r"c\.jsonl:3: prompt: a string is wanted, got int 3"):
        run(job, tmp_path / "strict")
    found, _ = run(dataclasses.replace(job, max_bad_lines=1), tmp_path / "run")
    assert [example.id for example in found] == ["0", "1"]
    [line] = (tmp_path / "run" / "01-candidates" / "rejects.jsonl").read_text().splitlines()
    assert {name: json.loads(line)[name] for name in ("line", "field")} == {"line": 3, "field": "prompt"}


def test_what_a_teacher_said_of_its_own_words_needs_no_asking(tmp_path, monkeypatch):
    responder = answered_by(monkeypatch, longer)
    example = said_by_teacher(Candidates("1", "Hi"), [Reply(text="a", logprobs=(-4.0,) * 4)])
    judging.write_candidates(tmp_path / "in.jsonl", [example])
    job = dataclasses.replace(
        config.load("judging/contextual"), judge="said", length_power=2.0, candidates=str(tmp_path / "in.jsonl")
    )
    found, _ = run(job, tmp_path / "run")
    assert (found[0].labels, responder.asked) == ((-1.0,), [])


def test_an_unanswered_example_stops_the_stage_and_the_same_command_goes_on(tmp_path, monkeypatch):
    job = dataclasses.replace(
        config.load("judging/contextual"), candidates=write(tmp_path / "in.jsonl", ("a", "bbb"), ("cc", "d"))
    )
    down = Failure(kind="unavailable", reason="down")
    answered_by(monkeypatch, lambda request: by_length(request) if "a" in shown(request).values() else down)
    with pytest.raises(StageError, match="1 of 2 judged; refused 0, unparsable 0, unanswered 1"):
        run(job, tmp_path / "run")
    again = answered_by(monkeypatch, by_length)
    found, _ = run(job, tmp_path / "run")
    assert [example.labels for example in found] == [(1.0, 3.0), (2.0, 1.0)]
    assert len(again.asked) == 1


def test_a_prompt_of_ones_own_is_checked_before_anything_is_asked(tmp_path):
    (tmp_path / "mine.toml").write_text('user = "{instruction} {responses}"\n')
    source = write(tmp_path / "in.jsonl", ("a", "b"))
    job = dataclasses.replace(config.load("judging/contextual"), candidates=source, prompt=str(tmp_path / "mine.toml"))
    with pytest.raises(ValueError, match=r"mine.toml: contextual prompt: the field \{format\} is missing"):
        job.stages()
    with pytest.raises(ValueError, match="--prompt is for the contextual and the pairwise judge; --judge is said"):
        dataclasses.replace(job, judge="said").stages()


def test_a_job_without_candidates_or_reward_model_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="give yours with --candidates"):
        config.load("judging/likelihood").stages()
    with pytest.raises(ValueError, match="give yours with --model"):
        dataclasses.replace(config.load("judging/reward"), candidates="x.jsonl")
