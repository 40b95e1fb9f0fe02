"""The command line: `gcl-fast COMMAND`, also `python -m gcl_fast COMMAND`."""

from __future__ import annotations

import importlib
import io
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable

from gcl_fast.cli.waits import wait_briefly
from gcl_fast.errors import did_you_mean
from gcl_fast.stages.stop_signals import stops_on_sigterm

COMMANDS = {
    "doctor": "what was found and built, what is missing and how to get it",
    "demo": "all three stages on a small synthetic world, with a report",
    "synth": "write a synthetic data set in Market-1501, DukeMTMC-reID or MSMT17 layout, with its meshes",
    "render": "mesh vertices -> rendered pictures in the authors' folder layout, any angles",
    "train": "train stage 1, 2, 3 or all",
    "evaluate": "mAP, CMC and mINP of a checkpoint, optionally re-ranked, with ranked lists",
    "generate": "reconstructions, novel views at given angles, identity mixes",
    "import-checkpoint": "weight files of the authors and other projects into this package's weights",
    "estimate-meshes": "photos alone into the meshes of a data set, with a preview",
    "import-meshes": "outputs of body estimators into the meshes of a data set, with a preview",
    "export": "the identity encoder as safetensors, torch.export program or ONNX, checked against the checkpoint",
    "embed": "photos of a folder into features (.npz or .parquet)",
    "search": "the photos of a folder nearest to a photo, with a sheet of them",
    "report": "the report of a run (curves, scores, pictures in one HTML file), written anew",
    "bench": "time the ops on this machine (in a clone of the repository: the benches are no part of the package)",
}


TRACEBACK = "--traceback"
GO_ON = {
    "train": "; --resume goes on from the last checkpoint",
    "demo": "; the same command goes on from the last checkpoint",
    "estimate-meshes": "; the same command goes on where it stopped",
}


def _after_a_stop(name: str, options: list[str]) -> str:
    """What a stopped command left, or how it goes on."""
    if name == "train" and {"--dry-run", "--dry_run"} & set(options):
        return " in the dry run; nothing was written"
    return GO_ON.get(name, "")


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        f"usage: gcl-fast COMMAND [options]\n\n{lines}\n\n"
        "gcl-fast COMMAND --help lists the options of a command.\n"
        f"{TRACEBACK}, before or after COMMAND, shows where an error came from."
    )


def _rank_or_refusal(name: str) -> tuple[str, str]:
    """(what torchrun's process is called in errors, why it may not run the command); empty where it may."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes == "1":
        return "", ""
    refusal = "" if name == "train" else f"only train runs in several processes, torchrun started {processes}"
    return f" (rank {os.environ.get('RANK', '?')})", refusal


def _warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning in words for a user, without the line of source that gave it."""
    return f"warning: {message}\n"


def _run(name: str, options: list[str]) -> int:
    command = importlib.import_module("gcl_fast.cli." + name.replace("-", "_"))
    warnings.formatwarning = _warning_line
    warnings.filterwarnings("ignore", "Image size .* exceeds limit", module="PIL")  # said by the error that follows
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more than cores: by default, where there are few
    return int(command.main(options) or 0)


def _say(words: str) -> int:
    print(words)
    return 0


def _ended(job: Callable[[], int], title: str, *, after_a_stop: str = "", with_traceback: bool = False) -> int:
    """The exit code of a job, its errors shown."""
    try:
        with stops_on_sigterm():
            code = job()
            sys.stdout.flush()  # while a closed pipe can still be told from other errors
            return code
    except KeyboardInterrupt as error:
        print(f"\n{title}: stopped{after_a_stop}", file=sys.stderr)
        return 128 + int(getattr(error, "signal", signal.SIGINT))  # as shells tell it
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _stdout_closed():
            return 1  # `gcl-fast ... | head`: nobody reads on
        from gcl_fast.cli.failures import show

        return show(error, title, with_traceback=with_traceback)


def _stdout_closed() -> bool:
    """Whether nobody reads stdout any more; then what is still printed goes nowhere, without a further complaint."""
    watch = select.poll()
    try:
        watch.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file of the system, as in tests
        return False
    if not any(event & select.POLLERR for _, event in watch.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _open_closed_streams() -> None:
    """Of a process that was started without stdout or stderr, as some schedulers do: what it prints goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _print_every_name() -> None:
    """Letters that a terminal's encoding lacks, and bytes of names that are none, are printed as escapes, as stderr does."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):  # the C locale's
        sys.stdout.reconfigure(errors="backslashreplace")


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 only when its job was done."""
    _open_closed_streams()
    given = list(sys.argv[1:] if argv is None else argv)
    valued = next((argument for argument in given if argument.startswith(f"{TRACEBACK}=")), None)
    if valued is not None:
        print(f"gcl-fast: {TRACEBACK} takes no value, got {valued}", file=sys.stderr)
        return 2
    argv = [argument for argument in given if argument != TRACEBACK]
    if not argv or argv[0] in ("-h", "--help", "help"):
        return _ended(lambda: _say(_usage()), "gcl-fast") or (0 if argv else 2)
    if argv[0] in ("-V", "--version"):
        from gcl_fast import __version__

        return _ended(lambda: _say(f"gcl_fast {__version__}"), "gcl-fast")
    _print_every_name()
    name = argv[0]
    if name not in COMMANDS:
        print(f"gcl-fast: no command {name!r}{did_you_mean(name, COMMANDS)}\n\n{_usage()}", file=sys.stderr)
        return 2
    wait_briefly()
    rank, refusal = _rank_or_refusal(name)
    title = f"gcl-fast {name}{rank}"
    if refusal:
        print(f"{title}: {refusal}", file=sys.stderr)
        return 1
    options = argv[1:]
    after = _after_a_stop(name, options)
    return _ended(lambda: _run(name, options), title, after_a_stop=after, with_traceback=len(argv) < len(given))
