"""The command line: ``jaxrefine run | show | plan CONFIG``, ``inspect SRC``, ``convert SRC DST``, ``route ROUTER``.

It imports what a command needs when the command runs: help and mistakes answer at once, before jax is imported.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from jaxrefine import __version__, config
from jaxrefine.artefacts.stopping import StoppedError

USAGE_ERROR = 2
"""Exit code of a command line that names something that is not there."""
_NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclasses.dataclass(frozen=True)
class Command:
    """One word after ``jaxrefine``."""

    function: Callable[[list[str]], int]
    """Gets the arguments after the word, returns the exit code."""
    arguments: str
    summary: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit code: 0, 2 for a mistake in it, 3 where a run cannot go on."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _say(_help())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] == "--version":
        _say(f"jaxrefine {__version__}")
        return 0
    word, *rest = arguments
    try:
        if word not in COMMANDS:
            raise config.ConfigError(config.unknown_name(word, COMMANDS, "command"))
        return COMMANDS[word].function(rest)
    except config.ConfigError as error:
        _say(f"jaxrefine: {error}", sys.stderr)
        return USAGE_ERROR
    except StoppedError as error:
        _say("\n".join([f"jaxrefine: {error}", *getattr(error, "__notes__", ())]), sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _say("jaxrefine: stopped; the same command goes on from here", sys.stderr)
        return 130


def run(arguments: list[str]) -> int:
    """``run CONFIG [--dotted.flag value …] [--workdir DIR] [--distributed]``: its stages, in their own directory."""
    arguments, where, heartbeat = _distributed(arguments)
    name, flags, workdir = _parse("run", arguments)
    configured = config.override(config.load(name), flags, prog=f"jaxrefine run {name}")
    if not callable(getattr(configured, "stages", None)):
        raise config.ConfigError(f"{name}: {type(configured).__name__} has no stages(): there is nothing to run")
    from jaxrefine.artefacts.stages import StageError, run_stages  # after the mistakes: it imports rich

    directory = pathlib.Path(workdir or pathlib.Path("runs") / config.name_of(config.find(name)))
    processes = None
    if where is not None:
        from jaxrefine.artefacts.processes import start_processes  # after the mistakes: it imports jax

        try:
            processes = start_processes(where, heartbeat_seconds=_number("--heartbeat-seconds", heartbeat))
        except ValueError as error:
            raise config.ConfigError(str(error)) from error
    try:
        stages = configured.stages()
    except ValueError as error:  # parts that do not fit together
        raise config.ConfigError(f"{name}: {error}") from error
    try:
        run_stages(stages, directory, configured, processes=processes)
    except StageError as error:
        raise config.ConfigError(str(error)) from error
    except OSError as error:
        if error.errno not in _NO_DISK:
            raise
        _say("\n".join([f"jaxrefine: {error}", *getattr(error, "__notes__", ())]), sys.stderr)
        return StoppedError.exit_code
    except SystemExit as error:  # told to stop: what it says, and its own exit code
        _say(f"jaxrefine: {error}", sys.stderr)
        raise
    return 0


def show(arguments: list[str]) -> int:
    """``show CONFIG [--dotted.flag value …]``: its header and every value, as a run would have it."""
    name, flags, workdir = _parse("show", arguments)
    if workdir is not None:
        raise config.ConfigError("show takes no --workdir: it runs nothing")
    configured = config.override(config.load(name), flags, prog=f"jaxrefine show {name}")
    _say(f"# {config.find(name)}")
    header = config.header(name)
    if header:
        _say("\n".join(f"# {line}".rstrip() for line in header.splitlines()))
    _say(config.show(configured))
    return 0


def inspect(arguments: list[str]) -> int:
    """``inspect SRC``: family, mechanisms, parameters and memory of a model directory or a PaLM's .pt file."""
    _, (directory,) = _options("inspect", arguments, ("SRC",))
    from jaxrefine.conversion.inspection import inspect as describe  # after the mistakes: it imports jax

    try:
        _say(describe(pathlib.Path(directory)))
    except (ValueError, OSError) as error:
        raise config.ConfigError(str(error)) from error
    return 0


def convert(arguments: list[str]) -> int:
    """``convert SRC DST [--to …] [--dtype …] [--verify]``: a model in another layout, family's layout or dtype."""
    flags = {"--to": True, "--dtype": True, "--family": True, "--fold-scales": False, "--verify": False}
    options, (source, destination) = _options(
        "convert", arguments, ("SRC", "DST"), flags | dict.fromkeys(_STATED, True)
    )
    stated = {flag[2:].replace("-", "_"): _stated(flag, options[flag]) for flag in _STATED if flag in options}
    from jaxrefine.conversion.convert import convert as run_conversion  # after the mistakes: it imports jax

    try:
        done = run_conversion(
            pathlib.Path(source),
            pathlib.Path(destination),
            to=options.get("--to", "hf"),
            dtype=options.get("--dtype"),
            family=options.get("--family"),
            fold="--fold-scales" in options,
            stated=stated,
            verify="--verify" in options,
            say=_say,
        )
    except (ValueError, OSError) as error:
        raise config.ConfigError(str(error)) from error
    _say(f"{destination}: written")
    if done.parity is not None or done.remark:
        _say(str(done.parity) if done.parity is not None else done.remark)
    return 0


def route(arguments: list[str]) -> int:
    """``route ROUTER QUERY`` or ``route ROUTER --file FILE``: which model is to answer, and how probable each is."""
    has_file = any(argument.partition("=")[0] == "--file" for argument in arguments)
    names = ("ROUTER",) if has_file else ("ROUTER", "QUERY")
    options, (directory, *query) = _options("route", arguments, names, {"--file": True})
    from jaxrefine.selection.router import load_router, route_file  # after the mistakes: it imports jax

    try:
        router = load_router(directory)
        if has_file:
            for record in route_file(router, options["--file"]):
                _say(json.dumps(record, ensure_ascii=False))
            return 0
        [shares] = router.probabilities(query)
    except (ValueError, OSError) as error:
        raise config.ConfigError(str(error)) from error
    for share, model in sorted(zip(shares, router.models, strict=True), key=lambda pair: -pair[0]):
        _say(f"{share:.4f}  {model}")
    return 0


_PLAN_FLAGS = {
    "--topology": True, "--model": True, "--training": True, "--data": True, "--fsdp": True, "--tensor": True,
    "--remat": True, "--attention": True, "--logprob-chunk": True, "--microbatches": True, "--groups": True,
    "--candidates": True, "--search": False, "--no-sampler": False, "--no-compile": False, "--json": True,
}  # fmt: skip


def plan(arguments: list[str]) -> int:
    """``plan CONFIG --topology NAME …``: a fine-tuning's very step, compiled for hardware that is not there."""
    usage = f"usage: jaxrefine plan {COMMANDS['plan'].arguments}"
    dotted, rest = _dotted(arguments)
    options, (name,) = _options("plan", rest, ("CONFIG",), _PLAN_FLAGS)
    if "--topology" not in options:
        raise config.ConfigError(f"which hardware? Give --topology, such as v5e-16, v5p-128, v6e-256, h100x8\n{usage}")
    numbers = {flag: _number(flag, options[flag]) for flag in _NUMBERS if flag in options}
    from jaxrefine.planning.topology import check_extra, parse_topology, prepare  # before jax: they import none of it

    config.find(name)
    try:
        topology = parse_topology(options["--topology"])
        check_extra(topology.chip.platform)
        prepare(topology.chip.platform)
    except ValueError as error:
        raise config.ConfigError(str(error)) from error
    configured = config.override(config.load(name), dotted, prog=f"jaxrefine plan {name}")
    from jaxrefine.planning.plan import make_plan, options_of  # after the environment is set: they import jax
    from jaxrefine.planning.report import as_json, report

    try:
        result = make_plan(
            configured,
            config.name_of(config.find(name)),
            topology,
            options_of(options, numbers),
            say=lambda text: _say(text, sys.stderr),
        )
    except (ValueError, OSError) as error:
        raise config.ConfigError(str(error)) from error
    _say(report(result))
    if "--json" in options:
        pathlib.Path(options["--json"]).write_text(json.dumps(as_json(result), indent=2) + "\n")
    return 0 if result.fits else 1


_NUMBERS = ("--data", "--fsdp", "--tensor", "--logprob-chunk", "--microbatches", "--groups", "--candidates")


def _number(flag: str, text: str) -> int:
    least = -1 if flag in ("--data", "--fsdp", "--tensor") else 0 if flag == "--candidates" else 1
    if not text.lstrip("-").isdigit() or int(text) < least:
        raise config.ConfigError(f"{flag} is {text!r}; allowed: a whole number from {least} on")
    return int(text)


def _dotted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Overrides of the config, which are flags with a dot in their name and their value; and the rest."""
    dotted: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        flag, equals, _ = argument.partition("=")
        if not (flag.startswith("--") and "." in flag):
            rest.append(argument)
            continue
        dotted.append(argument)
        if not equals and (value := next(waiting, None)) is not None:
            dotted.append(value)
    return dotted, rest


_STATED: dict[str, Callable[[str], Any]] = {
    "--gamma-offset": int,
    "--xpos-base": lambda text: None if text == "none" else float(text),
    "--qk-scale": float,
    "--max-positions": int,
}
"""What nothing in some sources' files tells, and how it is read."""


def _stated(flag: str, text: str) -> Any:
    try:
        return _STATED[flag](text)
    except ValueError as error:
        allowed = "a number" + (" or none" if flag == "--xpos-base" else "")
        raise config.ConfigError(f"{flag} is {text!r}; allowed: {allowed}") from error


COMMANDS: dict[str, Command] = {
    "run": Command(
        function=run,
        arguments="CONFIG [--dotted.flag value …] [--workdir DIR]\n"
        "      [--distributed [HOST:PORT,COUNT,INDEX] [--heartbeat-seconds N]]",
        summary="run a config's stages; finished ones are not run again, a stopped one goes on",
    ),
    "show": Command(
        function=show, arguments="CONFIG [--dotted.flag value …]", summary="print a config as a run would have it"
    ),
    "plan": Command(
        function=plan,
        arguments="CONFIG --topology v5e-16|v5p-128|v6e-256|h100x8|h200x8|… [--model DIR|llama-7b|…]\n"
        "      [--training NAME] [--data N] [--fsdp N] [--tensor N] [--remat NAME] [--attention NAME]\n"
        "      [--logprob-chunk N] [--microbatches N] [--groups N] [--candidates N] [--search] [--no-sampler]\n"
        "      [--no-compile] [--json FILE] [--dotted.flag value …]",
        summary="compile a fine-tuning's step for hardware that is not there: does it fit, what does it cost",
    ),
    "inspect": Command(
        function=inspect, arguments="SRC", summary="print a model's family, mechanisms, parameters and memory"
    ),
    "convert": Command(
        function=convert,
        arguments="SRC DST [--to hf|orbax|palm] [--dtype float32|bfloat16|float16] [--verify]\n"
        "      [--family NAME] [--fold-scales]\n"
        "      [--gamma-offset 0|1] [--xpos-base N|none] [--qk-scale X] [--max-positions N]",
        summary="write a model in another layout or dtype; --verify compares its logits with transformers",
    ),
    "route": Command(
        function=route,
        arguments="ROUTER QUERY | ROUTER --file FILE",
        summary="print how probable each model is for a query, or JSON lines for the queries of a file",
    ),
}


def _distributed(arguments: list[str]) -> tuple[list[str], str | None, str]:
    """The arguments without ``--distributed [WHERE]``, what it says ("auto", or None without it), and the heartbeat."""
    rest: list[str] = []
    where: str | None = None
    heartbeat = "100"
    words = list(arguments)
    while words:
        word = words.pop(0)
        flag, _, value = word.partition("=")
        if word == "--distributed":
            where = words.pop(0) if words and "," in words[0] and not words[0].startswith("-") else "auto"
        elif flag == "--distributed":
            where = value
        elif flag == "--heartbeat-seconds":
            heartbeat = value or (words.pop(0) if words else "")
        else:
            rest.append(word)
    return rest, where, heartbeat


def _parse(command: str, arguments: list[str]) -> tuple[str, list[str], str | None]:
    """The config, the flags for it, and the work directory."""
    flags: list[str] = []
    name: str | None = None
    workdir: str | None = None
    rest = iter(arguments)
    for argument in rest:
        if argument == "--workdir" or argument.startswith("--workdir="):
            workdir = argument.partition("=")[2] or next(rest, "")
            if not workdir or workdir.startswith("--"):
                raise config.ConfigError("--workdir wants a directory")
        elif name is None and not argument.startswith("-"):
            name = argument
        elif name is None and argument in ("-h", "--help"):
            _say(_help())
            raise SystemExit(0)
        elif name is None:
            raise config.ConfigError(f"the config comes before its flags, so {argument!r} cannot be first")
        else:
            flags.append(argument)
    if name is None:
        known = ", ".join(config.shipped())
        usage = f"jaxrefine {command} {COMMANDS[command].arguments}"
        raise config.ConfigError(f"which config? A Python file, or one of: {known}\nusage: {usage}")
    return name, flags, workdir


def _options(
    command: str, arguments: list[str], names: tuple[str, ...], flags: dict[str, bool] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Flags (whether each takes a value) and exactly as many other words as there are names."""
    usage = f"usage: jaxrefine {command} {COMMANDS[command].arguments}"
    flags = flags or {}
    options: dict[str, str] = {}
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, _, value = argument.partition("=")
        if argument in ("-h", "--help"):
            _say(usage)
            raise SystemExit(0)
        if not argument.startswith("--"):
            words.append(argument)
        elif flag not in flags:
            raise config.ConfigError(config.unknown_name(flag, flags, "flag") + f"\n{usage}")
        elif flags[flag]:
            options[flag] = value or next(rest, "")
            if not options[flag]:
                raise config.ConfigError(f"{flag} wants a value\n{usage}")
        else:
            options[flag] = ""
    if len(words) != len(names):
        raise config.ConfigError(f"{command} wants {' and '.join(names)}, not {len(words)} words\n{usage}")
    return options, words


def _help() -> str:
    lines = ["usage: jaxrefine COMMAND …", "", "commands:"]
    for word, command in COMMANDS.items():
        lines += [f"  {word} {command.arguments}", f"      {command.summary}"]
    lines += ["", "CONFIG is a Python file with get_config(), or one of the shipped configs:"]
    lines += [f"  {name}" for name in config.shipped()]
    lines += ["", "jaxrefine run CONFIG --help lists the flags of a config."]
    return "\n".join(lines)


def _say(text: str, file: TextIO | Any = None) -> None:
    stream = file if file is not None else sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


if __name__ == "__main__":
    raise SystemExit(main())
