"""What a run warned of: the same warning of several epochs is told once, in its last words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gcl_fast.report.formats import is_number
from gcl_fast.report.run_data import Run
from gcl_fast.report.titles import STAGES, stage_name

FEW = 5  # epochs that are named one by one


@dataclass(frozen=True)
class Warned:
    """where: the stage and its epochs, counted from 1."""

    where: str
    sentence: str


def epochs_in_words(epochs: Sequence[int]) -> str:
    """ "epoch 4", "epochs 1 and 2", "epochs 1 to 9", "7 of the epochs 1 to 9"; `epochs` ascend."""
    first, last = epochs[0], epochs[-1]
    if first == last:
        return f"epoch {first}"
    if len(epochs) == last - first + 1 > 2:
        return f"epochs {first} to {last}"
    if len(epochs) <= FEW:
        return f"epochs {', '.join(map(str, epochs[:-1]))} and {last}"
    return f"{len(epochs)} of the epochs {first} to {last}"


def warnings(run: Run) -> list[Warned]:
    """The warnings of the run's history, in the order in which they first came."""
    found: dict[tuple[str, str], tuple[set[int], str]] = {}
    for row in run.history:
        sentences = row.get("warnings")
        for sentence in sentences if isinstance(sentences, list) else []:
            kind = str(row["stage"]), re.sub(r"[\d.,]+", "", str(sentence))  # the figures change, the words stay
            epochs, _ = found.get(kind, (set(), ""))
            epoch = row.get("epoch")
            found[kind] = (epochs | {int(epoch) + 1} if is_number(epoch) else epochs, str(sentence))
    told = []
    for (stage, _), (epochs, sentence) in found.items():
        where = stage_name(stage).capitalize() if stage in STAGES else stage
        if epochs:
            where += f", {epochs_in_words(sorted(epochs))}"
        if len(epochs) > 1:
            where += f" (figures of epoch {max(epochs)})"
        told.append(Warned(where, sentence))
    return told
