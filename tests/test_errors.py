"""The package's errors are what a user can mend: each is a GclError and the built-in error that fits."""

from __future__ import annotations

import errno
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gcl_fast import errors
from gcl_fast.cli.failures import explain, show
from gcl_fast.errors import ConfigError, GclError, InputError, MissingFileError, TooLittleMemoryError
from gcl_fast.packages import PACKAGES, missing, package_of
from gcl_fast.records import Record, ReIDData

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GclError) and kind is not GclError]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_also_the_built_in_error(kind: type[GclError]) -> None:
    built_in = [base for base in kind.__mro__ if base.__module__ == "builtins" and base not in (Exception, BaseException, object)]
    assert built_in and kind.__doc__ and kind.__module__ == errors.__name__
    assert str(kind("words for the user")) == "words for the user" == explain(kind("words for the user"))


def test_callers_may_catch_either() -> None:
    assert issubclass(ConfigError, ValueError) and issubclass(MissingFileError, FileNotFoundError)
    assert issubclass(errors.FileError, OSError) and issubclass(errors.MissingPackageError, ImportError)
    assert issubclass(errors.CheckpointError, RuntimeError) and issubclass(TooLittleMemoryError, MemoryError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigError("seed must be at least 0"), "seed must be at least 0"),
        (MissingFileError("no folder at /x"), "no folder at /x"),
        (TooLittleMemoryError("needs 9 GiB"), "needs 9 GiB"),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), "PIL, which is not installed: pip install pillow"),
        (ModuleNotFoundError("No module named 'nvidia'", name="nvidia"), "pip install nvidia-dali-cuda130"),
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), "pip install pyyaml"),
        (MemoryError(), "not enough memory: choose a smaller batch size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), "memory on the GPU.*allocate 2 GiB.$"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "not enough memory"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "Permission denied: '/root/x'"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x.pt"), "Disk quota exceeded: 'x.pt'"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "File name too long"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a.jpg/b"), "Not a directory: 'a.jpg/b'"),
        (OSError(errno.EIO, "Input/output error", "x.npz"), "Input/output error: 'x.npz'"),
    ],
)
def test_what_the_user_can_mend_is_one_line(error: Exception, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = explain(error)
    assert line is not None and "\n" not in line
    assert show(error, "gcl-fast x", with_traceback=False) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("gcl-fast x: ") and printed.count("\n") == 1
    assert re.search(words, line)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("unsupported operand"),
        ValueError("shape"),
        RuntimeError("a bug"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        ModuleNotFoundError("No module named 'gcl_fast.nowhere'", name="gcl_fast.nowhere"),
        ModuleNotFoundError("No module named 'torhc'", name="torhc"),
        ImportError("cannot import name 'x'"),
        KeyError("lr"),
    ],
)
def test_a_programming_error_keeps_its_place(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(error) is None
    with pytest.raises(type(error)) as raised:
        raise error
    assert show(raised.value, "gcl-fast x", with_traceback=False) == 1
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed and "raise error" in printed
    assert "please report it" in printed.splitlines()[-1]


def test_every_optional_package_is_found_by_each_of_its_modules() -> None:
    for package in PACKAGES:
        for module in (package.module, *package.also, package.module + ".inner"):
            assert package_of(module) is package
        assert package.install.startswith("pip install ") and package.distributions[0] in package.install
    assert package_of("numpyy") is None and package_of("") is None


def test_a_missing_package_and_a_broken_one_are_told_apart() -> None:
    gone = ModuleNotFoundError("No module named 'nvidia'", name="nvidia")
    assert str(missing("nvidia.dali", "the DALI loader", gone)) == (
        "the DALI loader needs nvidia-dali-cuda130: pip install nvidia-dali-cuda130"
    )
    broken = ImportError("libdali.so: undefined\nsymbol", name="nvidia.dali.backend")
    words = str(missing("nvidia.dali", "the DALI loader", broken))
    assert words.endswith("(importing nvidia.dali failed: libdali.so: undefined symbol)")
    without = ModuleNotFoundError("No module named 'tqdm'", name="tqdm")  # what the package itself needs
    assert "No module named 'tqdm'" in str(missing("torch_fidelity", "FID", without))


def test_each_place_tells_why_a_package_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gcl_fast.images import pillow
    from gcl_fast.models.weights import load_weights

    for name in ("PIL", "safetensors"):
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('libgone.so is not there')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(errors.MissingPackageError, match=r"pip install pillow \(.*libgone\.so is not there"):
        pillow()
    (tmp_path / "a.safetensors").write_bytes(b"1234")
    with pytest.raises(errors.MissingPackageError, match=r"pip install safetensors \(.*libgone\.so is not there"):
        load_weights(tmp_path / "a.safetensors")


def test_arrays_that_cannot_be_read_are_not_to_be_unpickled(tmp_path: Path) -> None:
    from gcl_fast.meshes.mesh_files import read_faces, read_mesh

    objects = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "faces.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "objects.npz", vertices=objects)
    (tmp_path / "text.npz").write_text("no mesh")
    for read, name in ((read_faces, "faces.npy"), (read_mesh, "objects.npz"), (read_mesh, "text.npz"), (read_faces, "text.npz")):
        with pytest.raises(InputError, match=rf"{name}.*a damaged file, or one that holds more than plain arrays") as raised:
            read(tmp_path / name)
        assert "allow_pickle" not in str(raised.value)


def test_meshes_of_test_images_may_be_missing_but_a_mistake_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from gcl_fast.runs.dataset import OpenedDataset

    opened = object.__new__(OpenedDataset)
    opened.data = ReIDData("market1501", Path(), [], [Record(Path("a.jpg"), 0, 0)], [])
    problem: Exception = InputError("no meshes here")

    def no_meshes(*_: object) -> None:
        raise problem

    monkeypatch.setattr(opened, "_meshes", no_meshes)
    with pytest.warns(UserWarning, match="no pictures of test images: no meshes here"):
        assert opened._optional_test_meshes() is None
    problem = ValueError("a slip in the code")
    with pytest.raises(ValueError, match="a slip"):
        opened._optional_test_meshes()


def test_importers_hide_no_mistake_of_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gcl_fast.meshes.importing import importer
    from gcl_fast.models import published

    def slip(*_: object) -> None:
        raise ValueError("a slip in the code")

    monkeypatch.setattr(published, "recognise", slip)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="^a slip"):
        published.read_published(tmp_path / "a.pt")
    monkeypatch.setattr(importer, "_size_of", slip)
    converter = importer.MeshConverter(None, None, "y-down", None, False, (8, 4))
    estimate = importer.Estimate("a", "vertices", None)
    with pytest.raises(ValueError, match="^a slip"):
        importer._mesh_of(tmp_path / "a.jpg", estimate, converter)
    monkeypatch.setattr(importer, "_size_of", lambda path: (8, 4))
    with pytest.raises(InputError, match=r"the body of a\.jpg: vertices gives pose and shape here"):
        importer._mesh_of(tmp_path / "a.jpg", estimate, converter)


@pytest.mark.parametrize("modules", [{"encoder": 1}, {"encoder": {"a": 1}}, {"teacher": {}}, {1: {}}])
def test_modules_that_are_none_are_named(modules: object, tmp_path: Path) -> None:
    from gcl_fast.models.published import read_published

    torch.save({"modules": modules}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: "):
        read_published(tmp_path / "a.pt")
