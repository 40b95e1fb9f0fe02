"""YAML files into settings, strictly, and where the shipped ones lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcl_fast.config.method_recipes import from_values
from gcl_fast.config.schema import TrainConfig
from gcl_fast.errors import ConfigError, did_you_mean
from gcl_fast.packages import missing

if TYPE_CHECKING:
    import yaml

RESOLVED = "resolved"  # section of a run's config.yaml: what `auto` became, told but not read as settings


def load_yaml(path: str | Path, *, method: str | None = None) -> TrainConfig:
    """Read a YAML file over the recipe of its stage-1 method, or of `method`, which then takes its place."""
    path = Path(path)
    values = {key: value for key, value in read_yaml(path).items() if key != RESOLVED}
    try:
        return from_values(values, method)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_yaml(path: Path) -> dict[Any, Any]:
    """The keys and values of a YAML file. Errors: ConfigError that names the file and what is wrong with it."""
    try:
        import yaml
    except ImportError as error:
        raise missing("yaml", "reading configuration files", error) from error
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}{_alike(path)}; shipped ones: {', '.join(shipped())}")
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        twice = _given_twice(root)
        values = (loader.construct_document(root) if root is not None else None) or {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {_problem(error)}") from None
    if twice:
        raise ConfigError(f"{path} is not valid YAML: {twice}")
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, got {type(values).__name__}")
    return values


def yaml_text(values: Mapping[str, Any]) -> str:
    """Settings (`to_dict`) as a file that `load_yaml` reads."""
    try:
        import yaml
    except ImportError as error:
        raise missing("yaml", "writing configuration files", error) from error
    return str(yaml.safe_dump(dict(values), sort_keys=False))


def _given_twice(root: yaml.Node | None) -> str:
    """Where a section has one key twice, of which PyYAML takes the last without a word; empty where none has."""
    import yaml

    nodes, known = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in known:  # by an anchor
            continue
        known.add(id(node))
        lines: dict[str, int] = {}
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    line = key.start_mark.line + 1
                    if key.value in lines:
                        return f"line {line}: {key.value} stands there once more, after line {lines[key.value]}"
                    lines[key.value] = line
                nodes.append(value)
    return ""


def _problem(error: Exception) -> str:
    """YAML's own words on one line: where, and what is wrong."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem or 'it ends early'}"


def _alike(path: Path) -> str:
    """'; did you mean NAME?', a shipped name or a file beside; empty where nothing is called alike."""
    beside = [str(p) for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return did_you_mean(str(path), beside, cutoff=0.8) or did_you_mean(path.stem, shipped())


def config_dir() -> Path:
    """The shipped YAML files: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped() -> list[str]:
    return sorted(p.stem for p in config_dir().glob("*.yaml"))


def load_shipped(name: str, *, method: str | None = None) -> TrainConfig:
    return load_yaml(config_dir() / f"{name}.yaml", method=method)
