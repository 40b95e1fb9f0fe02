"""The optional packages: what each is for and how to install it. The doctor lists them; a missing one is named from here."""

from __future__ import annotations

from dataclasses import dataclass


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
    OptionalPackage("PIL", ("pillow",), "reading images", "pip install pillow"),
    OptionalPackage("yaml", ("pyyaml",), "configuration files", "pip install pyyaml"),
    OptionalPackage("tyro", ("tyro",), "command line", "pip install tyro"),
    OptionalPackage("rich", ("rich",), "progress bars", "pip install rich"),
    OptionalPackage("tensorboard", ("tensorboard",), "TensorBoard events", "pip install tensorboard"),
    OptionalPackage("safetensors", ("safetensors",), "safetensors weights", "pip install safetensors"),
    OptionalPackage(
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu"),
        "ONNX export and its check",
        "pip install onnx onnxscript onnxruntime",
        also=("onnx", "onnxscript"),
    ),
    OptionalPackage("anny", ("anny",), "bodies of the synthetic world", "pip install anny", also=("trimesh",)),
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


def package_of(imported: str) -> OptionalPackage | None:
    """The package that an import such as `PIL.Image`, `nvidia` or `onnxscript` belongs to; None for one not known here."""
    for package in PACKAGES:
        for module in (package.module, *package.also):
            # "nvidia" is what Python misses where nothing at all of "nvidia.dali" is installed
            if imported == module or imported.startswith(f"{module}.") or module.startswith(f"{imported}."):
                return package
    return None
