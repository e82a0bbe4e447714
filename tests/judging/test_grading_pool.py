"""The pool: hostile answers neither hang, crash, grow nor run anything, and it is whole again afterwards."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import pytest

from benchmarks.faults.hostile import ANSWERS, CANARY
from jaxrefine.judging import answers, grading_pool, grading_worker
from jaxrefine.judging.grading_pool import GradingPool, PoolConfig, fits

ROOT = pathlib.Path(__file__).parent.parent.parent
WORKER = pathlib.Path(grading_worker.__file__)


@pytest.fixture(scope="module")
def pool():
    with GradingPool(PoolConfig(workers=2, deadline_seconds=20)) as made:
        made.start()
        yield made


def test_what_is_let_through_to_a_parser_is_small_and_tame():
    assert [text[:20] for text in ANSWERS if fits(text) and CANARY in text and "__" in text] == []
    assert not any(fits(text) for text in ANSWERS if len(text) > grading_pool.MAX_LENGTH)
    assert fits("x^4 + y^2 + z^2")


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (r"\int_0^1 2x \, dx", "1", "equal"),
        (r"\sum_{k=1}^{4} k", "10", "equal"),
        (r"8r^2 \ge s^2", r"s^2 \le 8r^2", "equal"),
        (r"\int_0^1 2x \, dx", "2", "different"),
        (r"\begin{", "2", "undecided"),
    ],
)
def test_math_verify_settles_what_keys_do_not(pool: GradingPool, a: str, b: str, verdict: str):
    assert pool.compare(a, b) == pool.compare(b, a) == verdict
    assert answers.equivalent(a, b, grader=pool) == verdict


def test_clusters_ask_the_pool_about_what_was_not_understood(pool: GradingPool):
    assert answers.cluster(["10", r"\sum_{k=1}^{4} k", "11", "10.0"], grader=pool) == [0, 0, 1, 0]


def test_threads_share_a_pool(pool: GradingPool):
    pairs = [(rf"\sum_{{k=1}}^{{{n}}} k", str(n * (n + 1) // 2 + n % 2)) for n in range(2, 10)]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda pair: pool.compare(*pair), pairs))
    assert found == ["equal", "different"] * 4
    assert pool.compare_all(pairs) == found
    assert pool.alive == 2


def test_a_worker_that_is_killed_is_replaced_and_its_pair_is_undecided(pool: GradingPool):
    pool.start()
    died = pool.counts["died"]
    for worker in list(pool._all):
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    assert [pool.compare(r"\sum_{k=1}^{3} k", f"{n}.5") for n in (1, 2)] == ["undecided", "undecided"]
    assert pool.counts["died"] == died + 2
    assert pool.compare(r"\sum_{k=1}^{3} k", "6") == "equal"
    assert pool.alive == 2


def test_a_pair_that_takes_too_long_is_undecided_and_its_worker_replaced():
    with GradingPool(PoolConfig(workers=1, deadline_seconds=0.3)) as pool:
        pool.start()
        first = next(iter(pool._all)).process.pid
        os.kill(first, signal.SIGSTOP)  # hangs for certain, whatever math-verify can do
        assert pool.compare(r"\sum_{k=1}^{3} k", "6") == "undecided"
        assert pool.counts["killed"] == 1
        assert pool.alive == 1
        assert next(iter(pool._all)).process.pid != first


def test_a_worker_that_has_no_room_says_so():
    with GradingPool(PoolConfig(workers=1, memory_bytes=1 << 20)) as pool:
        with pytest.raises(RuntimeError, match="did not start in .*memory_bytes = 1048576"):
            pool.compare(r"\sum_{k=1}^{3} k", "6")
        assert pool.alive == 0


def test_workers_have_limits_and_no_secrets(pool: GradingPool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with GradingPool(PoolConfig(workers=1)) as fresh:
        fresh.start()
        process = pathlib.Path("/proc") / str(next(iter(fresh._all)).process.pid)
        assert b"secret" not in (process / "environ").read_bytes()
        limits = {line[:26].strip(): line[26:].split()[0] for line in (process / "limits").read_text().splitlines()}
        assert limits["Max address space"] == str(512 << 20)
        assert limits["Max file size"] == "0"
        mapped = (process / "maps").read_text()
        assert "jaxlib" not in mapped  # a worker is light: it imports no jax
        assert "torch" not in mapped


def test_a_worker_ends_when_it_is_made_to_write_or_to_start_a_process(tmp_path: pathlib.Path):
    canary = tmp_path / CANARY
    for reach in (f"open({str(canary)!r}, 'w')", f"__import__('os').system('touch {canary}')"):
        program = (
            f"import runpy, sys; space = runpy.run_path({str(WORKER)!r});\n"
            f"sys.addaudithook(space['guard']);\n{reach}\nprint('ran')"
        )
        finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert finished.returncode == grading_worker.REFUSED_EXIT
        assert finished.stdout == ""
    assert not canary.exists()


def test_a_worker_imports_nothing_of_this_package_nor_the_callers_main_module(tmp_path: pathlib.Path):
    main = tmp_path / "main.py"
    main.write_text(
        "print('imported')\n"
        "from jaxrefine.judging import answers\n"
        "print(answers.equivalent(r'\\sum_{k=1}^{4} k', '10'))\n"
    )
    finished = subprocess.run(
        [sys.executable, str(main)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert finished.stdout.split() == ["imported", "equal"], finished.stderr
    assert finished.stderr == ""


def test_a_forked_child_has_workers_of_its_own_and_leaves_its_parents_alone():
    program = (
        "import os\n"
        "from jaxrefine.judging.grading_pool import GradingPool, PoolConfig\n"
        "pool = GradingPool(PoolConfig(workers=1))\n"
        "pool.start()\n"
        "child = os.fork()\n"
        "verdict = pool.compare(r'\\sum_{k=1}^{4} k', '10')\n"
        "pool.close()\n"
        "if not child:\n"
        "    os._exit(0 if verdict == 'equal' else 1)\n"
        "assert verdict == 'equal' and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_pool_goes_to_another_process_as_its_settings(pool: GradingPool):
    other = pickle.loads(pickle.dumps(pool))
    assert other.config == pool.config
    assert other.alive == 0


def test_a_closed_pool_says_so():
    pool = GradingPool(PoolConfig(workers=1))
    pool.close()
    with pytest.raises(RuntimeError, match="this pool is closed"):
        pool.compare(r"\sum_{k=1}^{4} k", "10")


def test_settings_that_no_pool_can_have_are_refused():
    with pytest.raises(ValueError, match="workers = 0 must be positive"):
        PoolConfig(workers=0)


def test_a_worker_without_math_verify_says_what_to_install(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no math_verify here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with GradingPool(PoolConfig(workers=1)) as pool, pytest.raises(ImportError, match="pip install math-verify"):
        pool.compare(r"\sum_{k=1}^{4} k", "10")


def test_the_worker_reports_what_a_symbolic_library_raises(monkeypatch: pytest.MonkeyPatch):
    def fails(a: str, b: str) -> str:
        raise {"memory": MemoryError, "value": ValueError}[a]

    monkeypatch.setattr(grading_worker, "verdict", fails)
    assert grading_worker.answer({"a": "memory", "b": ""}) == {"verdict": "undecided", "why": "memory"}
    assert grading_worker.answer({"a": "value", "b": ""}) == {"verdict": "undecided", "why": "ValueError"}
    assert json.dumps(grading_worker.answer({"a": "value", "b": ""}))
