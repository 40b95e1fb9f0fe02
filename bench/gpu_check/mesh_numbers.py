"""The numbers of the ops on pictures: rasterize, render, flow, warp, interpolate, pad; rivals DRTK, PyTorch3D, plain PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import floors, interpolate, meshes, rasterize, reflect_pad, render, warp
from bench.gpu_check.catalogue import Number
from bench.gpu_check.measuring import Call, Prepared, copies_for
from gcl_fast import ops, reference

PIXEL_BYTES = {"rasterize": 20, "render": 4, "flow": 9, "warp": 25, "interpolate": 40, "pad": 2048}


def prepare(number: Number, device: torch.device) -> Prepared:
    case, op = number.case, number.case["op"]
    pixels = case["batch"] * case.get("views", 1) * case["size"][0] * case["size"][1]
    copies = copies_for(pixels * PIXEL_BYTES[op], device)
    makers: dict[str, Callable[..., Prepared]] = {
        "rasterize": _rasterize,
        "render": _render,
        "flow": _flow_or_warp,
        "warp": _flow_or_warp,
        "interpolate": _interpolate,
        "pad": _pad,
    }
    return makers[op](number, device, copies)


def _shifted(verts: Tensor, copies: int) -> list[Tensor]:
    """The same bodies some hundredths of a pixel further, as inputs of their own."""
    return [verts + 0.01 * n for n in range(copies)]


def _rasterize(number: Number, device: torch.device, copies: int) -> Prepared:
    case, size = number.case, number.case["size"]
    verts, faces = meshes.body(case["batch"], size, case["rings"], device)
    rivals = {"drtk": _drtk, "pytorch3d": _pytorch3d}
    rival = rivals.get(number.implementation)
    draw = rival(faces, size) if rival else lambda v: tuple(ops.rasterize(v, faces, size, method=_method(number)))

    def check() -> str:
        got = draw(verts)
        if rival:
            share, ours = ((ids >= 0).float().mean() for ids in (got[0], ops.rasterize(verts, faces, size).face_id))
            assert abs(float(share - ours)) < 0.02, f"covers {float(share):.3f} of the pixels, ours {float(ours):.3f}"
            return "covers the same share of the pixels within 2%"
        return _same_as_cpu(got, lambda v: ops.rasterize(v, faces.cpu(), size), verts) + _as_defined(got, verts, faces, size)

    work = floors.rasterize(case["batch"], verts.shape[1], len(faces), size)
    return Prepared([_bound(draw, v) for v in _shifted(verts, copies)], check, work, **_capture(number))


def _method(number: Number) -> Any:
    """How to draw: native is what the op chooses, the others are asked for, so that a measurement decides the rule."""
    return "auto" if number.implementation == "native" else number.implementation


def _bound(function: Callable[..., Any], *arguments: Any) -> Call:
    return lambda: function(*arguments)


def _capture(number: Number) -> dict[str, Any]:
    return {"promised": number.implementation in ("native", *rasterize.METHODS)}


def _same_as_cpu(got: tuple[Tensor, ...], on_cpu: Callable[[Tensor], Any], verts: Tensor, most: int = 16) -> str:
    """face_id and depth of up to 16 images spread over the batch have the CPU kernels' bits."""
    chosen = torch.linspace(0, len(verts) - 1, min(most, len(verts))).long()
    want = on_cpu(verts[chosen.to(verts.device)].cpu())
    for name, mine, theirs in (("face_id", got[0], want[0]), ("depth", got[2], want[2])):
        assert torch.equal(mine[chosen.to(mine.device)].cpu(), theirs), f"{name} differs from the CPU's"
    return f"face_id and depth of {len(chosen)} images have the CPU kernels' bits; "


def _as_defined(got: tuple[Tensor, ...], verts: Tensor, faces: Tensor, size: tuple[int, int]) -> str:
    last = slice(len(verts) - 1, None)
    want = reference.rasterize(verts[last].cpu(), faces.cpu(), size)
    assert torch.equal(got[0][last].cpu(), want.face_id) and torch.equal(got[2][last].cpu(), want.depth)
    assert float((got[1][last].cpu() - want.bary).abs().max()) <= 1e-6
    assert 0.1 < float((want.face_id >= 0).float().mean()) < 0.95
    return "the last image equals the reference, bary within 1e-6"


def _drtk(faces: Tensor, size: tuple[int, int]) -> Callable[[Tensor], Any]:
    if not rasterize.drtk_parts():
        raise ModuleNotFoundError("No module named 'drtk'", name="drtk")
    return lambda v: rasterize.drtk_draw(v, faces, size)()


def _pytorch3d(faces: Tensor, size: tuple[int, int]) -> Callable[[Tensor], Any]:
    draw = importlib.import_module("pytorch3d.renderer.mesh.rasterize_meshes").rasterize_meshes
    bodies = importlib.import_module("pytorch3d.structures").Meshes
    height, width = size

    def run(verts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Its pixels are in units of half the shorter side, x to the left, y up."""
        scale = 2.0 / min(height, width)
        x, y = (width / 2 - verts[..., 0]) * scale, (height / 2 - verts[..., 1]) * scale
        mesh = bodies(torch.stack((x, y, verts[..., 2]), -1), faces.long()[None].expand(len(verts), -1, -1))
        face, depth, bary, _ = draw(mesh, image_size=size, blur_radius=0.0, faces_per_pixel=1)
        return face[..., 0], bary[..., 0, :], depth[..., 0]

    return run


def _render(number: Number, device: torch.device, copies: int) -> Prepared:
    case = number.case
    verts, faces, camera = render.scene(case, device)
    yaws = render.yaws(case)
    draw = partial(ops.render_mesh, method=_method(number))

    def check() -> str:
        render.check({**case, "rings": min(case["rings"], 31)}, device)
        few = slice(0, min(2, len(verts)))
        got = draw(verts, faces, camera, yaws, case["size"])[few].cpu()
        want = ops.render_mesh(verts[few].cpu(), faces.cpu(), camera[few].cpu(), yaws, case["size"])
        far = float(((got - want).abs() > 1e-4).float().mean())
        assert far <= 0.001 and float((want > 0).float().mean()) > 0.1, f"{far:.2%} of the pixels differ from the CPU's"
        return f"{render.CHECK}; at this size 2 bodies as the CPU draws them, {far:.3%} of the pixels further than 1e-4"

    work = floors.render(case["batch"], case["views"], verts.shape[1], len(faces), case["size"])
    inputs = [verts * (1 + 1e-4 * n) for n in range(copies)]
    calls = [_bound(draw, v, faces, camera, yaws, case["size"]) for v in inputs]
    return Prepared(calls, check, work)


def _flow_or_warp(number: Number, device: torch.device, copies: int) -> Prepared:
    case, op, size = number.case, number.case["op"], number.case["size"]
    scene, native = warp.scene(case, device), number.implementation == "native"
    inputs = [warp.Scene(scene.image, v, scene.dst + 0.0, scene.faces) for v in _shifted(scene.src, copies)]

    def run(s: warp.Scene) -> Any:
        if native:
            return tuple(ops.mesh_flow(s.src, s.dst, s.faces, size) if op == "flow" else ops.mesh_warp(*s))
        return warp.plain_flow(*warp.rasters(s)) if op == "flow" else warp.plain_warp(s.image, *warp.rasters(s))

    def check() -> str:
        warp.check({**case, "rings": min(case["rings"], 31)}, device)
        few = warp.Scene(*(t[:2].cpu() if t.dim() > 2 else t.cpu() for t in scene))
        want = tuple(ops.mesh_flow(few.src, few.dst, few.faces, size) if op == "flow" else ops.mesh_warp(*few))
        got = run(scene)
        same = got[1][:2].cpu() == want[1]
        assert float(same.float().mean()) >= 0.998, "visibility differs from the CPU's"
        difference = (got[0][:2].cpu() - want[0]).abs().amax(-1 if op == "flow" else 1)
        assert float((difference * same).max()) <= 0.01
        return f"{warp.CHECK}; at this size 2 images as on the CPU: 99.8% of visibility, the rest within 0.01"

    make = floors.flow if op == "flow" else floors.warp
    work = make(len(scene.src), scene.src.shape[1], len(scene.faces), size)
    return Prepared([_bound(run, s) for s in inputs], check, work, exact=native, promised=native)


def _interpolate(number: Number, device: torch.device, copies: int) -> Prepared:
    case = {**number.case, "pass": "forward"}
    scene = interpolate.scene(case, device)
    function = ops.interpolate if number.implementation == "native" else interpolate.pytorch

    def check() -> str:
        interpolate.check(case, device)
        return interpolate.CHECK

    attributes, faces, face_id, bary = scene
    work = floors.interpolate(len(face_id), attributes.shape[1], len(faces), case["size"], case["channels"])
    calls = [_bound(function, attributes + n, faces, face_id.clone(), bary.clone()) for n in range(copies)]
    return Prepared(calls, check, work, **_capture(number))


def _pad(number: Number, device: torch.device, copies: int) -> Prepared:
    """Forward and backward."""
    case, border, native = number.case, 1, number.implementation == "native"
    batch, channels, (height, width) = case["batch"] * case["views"], case["channels"], case["size"]
    shape = (batch, channels, height, width)
    x, grad = reflect_pad.scene(shape, border, torch.bfloat16, torch.channels_last, device)

    def run(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        if native:
            return ops.reflect_pad(x, border), torch.ops.gcl_fast.reflect_pad_backward(grad, border)
        sides = [border] * 4
        return reference.reflect_pad(x, border), torch.ops.aten.reflection_pad2d_backward(grad, x, sides)

    def check() -> str:
        reflect_pad.compare(x, grad, border)
        return reflect_pad.CHECK

    work = floors.pad(batch, channels, case["size"], border, x.element_size())
    calls = [_bound(run, x + n, grad.clone(memory_format=torch.preserve_format)) for n in range(copies)]
    return Prepared(calls, check, work, exact=True if native else None, promised=native)  # the rival adds in no order
