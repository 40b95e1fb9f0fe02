"""The identity encoder for use outside this package: safetensors weights, a torch.export program, an ONNX file.

The exported network takes RGB in [0, 1], [B, 3, H, W], any B, and gives the matching feature [B, D], L2-normalised. ImageNet's
mean and standard deviation are inside: whoever calls it must not normalise again. Every file says so in its metadata.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.errors import ExportError, FileError, FolderInUseError, InputError, MissingPackageError
from gcl_fast.files import check_writable, unfinished_beside, write_whole
from gcl_fast.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from gcl_fast.models import IdentityEncoder
from gcl_fast.models.modes import evaluating
from gcl_fast.packages import broken, missing, silence_onnxruntime

FORMATS = ("safetensors", "torch", "onnx")
FILES = {"safetensors": "encoder.safetensors", "torch": "encoder.pt2", "onnx": "encoder.onnx"}
OPSET = 18
TOLERANCE = 1e-4  # on features of length 1: float32 sums of 50 layers in another order differ by some 1e-6
BATCHES = (1, 2, 5)  # sizes that the parity check runs, none of them the example's alone


class FeatureOf(nn.Module):
    """RGB in [0, 1] [B, 3, H, W] -> feature [B, D] of length 1: normalisation, encoder, L2."""

    def __init__(self, encoder: IdentityEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return F.normalize(self.encoder((image - self.mean) / self.std)[1], dim=1)


def describe(encoder: IdentityEncoder, image_size: tuple[int, int], source: str) -> dict[str, Any]:
    """What a user of an exported file must know."""
    return {
        "input": f"image [B, 3, {image_size[0]}, {image_size[1]}] float32, RGB in [0, 1]; resize bicubic; any B",
        "normalisation": f"inside the exported graph (mean {IMAGENET_MEAN}, std {IMAGENET_STD}): do not normalise before",
        "output": f"feature [B, {encoder.feature_dim}] float32, length 1: compare by the dot product",
        "variant": encoder.variant,
        "backbone": encoder.backbone_name,
        "pooling": encoder.pooling,
        "stem_channels": encoder.width,
        "feature_dim": encoder.feature_dim,
        "height": image_size[0],
        "width": image_size[1],
        "source": source,
    }


def export_encoder(
    encoder: IdentityEncoder,
    out: str | os.PathLike[str],
    formats: Sequence[str] = FORMATS,
    *,
    image_size: tuple[int, int] = (256, 128),
    source: str = "",
) -> dict[str, tuple[Path, float]]:
    """Write the encoder in each format into the folder `out` and check every file against it.

    Arguments:
        encoder: moved to the CPU, in eval mode during the export; its modes are put back.
        out: folder; made where it is not there.
        formats: of "safetensors" (weights alone, for IdentityEncoder.load_state_dict; these do take normalised images),
            "torch" (a torch.export program, .pt2), "onnx".
        image_size: (H, W) of the images that the file will take.
        source: what encoder.json names as the origin.

    Returns: format -> (file, largest difference of any feature entry from the checkpoint's, over several batch sizes).
    Errors: InputError for an unknown format; ExportError where a file differs by more than 1e-4, which is then not kept;
        MissingPackageError says how to install what a format needs.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        raise InputError(f"export_encoder: formats must be of {', '.join(FORMATS)}, got {', '.join(unknown) or 'none'}")
    if "onnx" in formats:
        _need_onnx()
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FolderInUseError(f"{out} is a file: name another folder to write the encoder to") from None
    except OSError as error:
        raise FileError(f"cannot write to {out}: {error.strerror or error}") from error
    for name in formats:
        check_writable(out / FILES[name])
    facts = describe(encoder, image_size, source)
    done: dict[str, tuple[Path, float]] = {}
    with evaluating(encoder):
        network = FeatureOf(encoder.cpu()).eval()
        for name in dict.fromkeys(formats):
            path = out / FILES[name]
            with unfinished_beside(path) as unchecked:
                run = WRITERS[name](network, unchecked, facts, image_size)
                difference = parity(encoder, run, image_size)
                if not difference <= TOLERANCE:
                    raise ExportError(
                        f"{path.name} was not kept: its features differ from the checkpoint's by {difference:.2e}, "
                        f"more than {TOLERANCE:.0e}"
                    )
            done[name] = (path, difference)
    facts["parity"] = {name: difference for name, (_, difference) in done.items()}
    write_whole(out / "encoder.json", json.dumps(facts, indent=2) + "\n")
    return done


def parity(encoder: IdentityEncoder, run: Callable[[Tensor], Tensor], image_size: tuple[int, int]) -> float:
    """Largest difference between `run` of pixels in [0, 1] and evaluation's features; inf for NaN or a wrong shape."""
    rng, worst = torch.Generator().manual_seed(0), 0.0
    for batch in BATCHES:
        pixels = torch.randint(0, 256, (batch, *image_size, 3), dtype=torch.uint8, generator=rng)
        with torch.no_grad():
            want = F.normalize(encoder(normalise(pixels))[1].float(), dim=1)  # [B, D]
            got = run(pixels.permute(0, 3, 1, 2).float() / 255)
        if got.shape != want.shape or not bool(torch.isfinite(got).all()):
            return float("inf")
        worst = max(worst, float((got - want).abs().max()))
    return worst


def _safetensors(
    network: FeatureOf, path: Path, facts: dict[str, Any], image_size: tuple[int, int]
) -> Callable[[Tensor], Tensor]:
    try:
        from safetensors.torch import load, save
    except ImportError as error:
        raise missing("safetensors", "writing safetensors weights", error) from error
    state = {name: value.detach().clone().contiguous() for name, value in network.encoder.state_dict().items()}
    statistics = f"mean {IMAGENET_MEAN}, std {IMAGENET_STD}"
    words = facts | {
        "normalisation": f"not in the weights: give the encoder images normalised by {statistics}",
        "output": "the encoder's (code, feature); normalise the feature to length 1",
    }
    # not save_file: what that writes its owner alone may read
    path.write_bytes(save(state, {name: str(value) for name, value in words.items()}))
    like = network.encoder
    again = IdentityEncoder(
        like.variant, like.backbone_name, width=like.width, feature_width=like.feature_dim, pooling=like.pooling
    )
    again.load_state_dict(load(path.read_bytes()))  # not load_file, which takes names in UTF-8 alone
    return FeatureOf(again.eval()).eval()


def exported_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of the images that an exported .safetensors file was made for; None where a file does not tell."""
    if path.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = file.metadata() or {}
    height, width = facts.get("height", ""), facts.get("width", "")
    return (int(height), int(width)) if height.isdecimal() and width.isdecimal() else None


def _dynamic() -> dict[str, dict[int, Any]]:
    return {"image": {0: torch.export.Dim("batch", min=1)}}


def _program(network: FeatureOf, image_size: tuple[int, int]) -> Any:
    return torch.export.export(network, (torch.rand(3, 3, *image_size),), dynamic_shapes=_dynamic())


def _torch_program(
    network: FeatureOf, path: Path, facts: dict[str, Any], image_size: tuple[int, int]
) -> Callable[[Tensor], Tensor]:
    content = io.BytesIO()  # torch's writer ends the process where a disk is full
    torch.export.save(_program(network, image_size), content, extra_files={"encoder.json": json.dumps(facts)})
    path.write_bytes(content.getbuffer())
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _need_onnx() -> None:
    silence_onnxruntime()
    reasons = {}
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            reasons[name] = broken(name, error)
    if reasons:
        needed = f"{', '.join(reasons)}: pip install 'gcl_fast[export]'{''.join(reasons.values())}"
        raise MissingPackageError(f"ONNX export, with its check, needs {needed}")


def _onnx(network: FeatureOf, path: Path, facts: dict[str, Any], image_size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    import onnx
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            network,
            (torch.rand(3, 3, *image_size),),
            dynamo=True,
            dynamic_shapes=_dynamic(),
            input_names=["image"],
            output_names=["feature"],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    model = program.model_proto
    for name, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, str(value)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["feature"], {"image": image.numpy()})[0])


WRITERS = {"safetensors": _safetensors, "torch": _torch_program, "onnx": _onnx}
