"""The command line: `gcl-fast COMMAND`, also `python -m gcl_fast COMMAND`."""

from __future__ import annotations

import importlib
import os
import sys

COMMANDS = {
    "doctor": "what was found and built, what is missing and how to get it",
    "demo": "all three stages on a small synthetic world, with a report",
    "synth": "write a synthetic data set in Market-1501, DukeMTMC-reID or MSMT17 layout, with its meshes",
    "render": "mesh vertices -> rendered pictures in the authors' folder layout, any angles",
    "train": "train stage 1, 2, 3 or all",
    "evaluate": "mAP, CMC and mINP of a checkpoint, optionally re-ranked, with ranked lists",
    "generate": "reconstructions, novel views at given angles, identity mixes",
    "import-checkpoint": "weight files of the authors and other projects into this package's weights",
    "import-meshes": "outputs of body estimators into the meshes of a data set, with a preview",
    "export": "the identity encoder as safetensors, torch.export program or ONNX, checked against the checkpoint",
    "bench": "time the ops on this machine",
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return f"usage: gcl-fast COMMAND [options]\n\n{lines}\n\ngcl-fast COMMAND --help lists the options of a command."


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 only when its job was done."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from gcl_fast import __version__

        print(f"gcl_fast {__version__}")
        return 0
    name, options, title = argv[0], argv[1:], f"gcl-fast {argv[0]}"
    if name not in COMMANDS:
        print(f"gcl-fast: no command {name!r}\n\n{_usage()}", file=sys.stderr)
        return 2
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        title += f" (rank {os.environ.get('RANK', '?')})"
        if name != "train":
            print(f"{title}: only train runs in several processes, torchrun started {processes}", file=sys.stderr)
            return 1
    try:
        command = importlib.import_module("gcl_fast.cli." + name.replace("-", "_"))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gcl_fast"):
            raise
        print(f"gcl-fast {name} needs {error.name}: pip install 'gcl_fast[train]'", file=sys.stderr)
        return 1
    try:
        return int(command.main(options) or 0)
    except KeyboardInterrupt:
        print("\nstopped; --resume goes on from the last checkpoint", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        print(f"gcl-fast {name} needs {error.name}: pip install {error.name}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if "--traceback" in argv:
            raise
        print(f"{title}: {error}", file=sys.stderr)
        return 1
