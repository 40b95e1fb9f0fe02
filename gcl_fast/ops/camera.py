"""Turning a body about its vertical axis and projecting it to pixels; `gcl_fast.meshes` re-exports both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from gcl_fast.ops._check import FLOATS, NUMBERS, Shapes


def cosine_sine(degrees: float) -> tuple[float, float]:
    """Exact at multiples of 90 degrees, so that a quarter turn moves no vertex by a rounding error."""
    quarter, rest = divmod(float(degrees), 90.0)
    c, s = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    return ((c, s), (-s, c), (-c, -s), (s, -c))[int(quarter) % 4]


def turns_of(yaw_degrees: Sequence[float] | Tensor) -> Tensor:
    """[R, 2] float64: cosine and sine of each angle, exact at multiples of 90 degrees; on the CPU where it is a list."""
    if not isinstance(yaw_degrees, Tensor):
        if not torch.compiler.is_compiling():
            turns = [cosine_sine(degrees) for degrees in yaw_degrees]
            return torch.tensor(turns, dtype=torch.float64, device="cpu").reshape(-1, 2)
        yaw_degrees = torch.tensor(yaw_degrees, dtype=torch.float64, device="cpu")  # a number may be a symbol: no divmod
    angle = yaw_degrees.to(torch.float64)
    quarter = (angle / 90).floor()
    rest = torch.deg2rad(angle - 90 * quarter)
    c, s = rest.cos(), rest.sin()
    odd, sign = quarter.remainder(2) == 1, 1 - 2 * (quarter.remainder(4) >= 2).to(torch.float64)
    return sign.unsqueeze(-1) * torch.stack((torch.where(odd, -s, c), torch.where(odd, c, s)), -1)


def cosines_sines(yaw_degrees: Sequence[float] | Tensor, like: Tensor) -> Iterable[tuple[float | Tensor, float | Tensor]]:
    """One pair an angle, and nothing is sent to a device for a list: numbers, in compiled code scalars on the CPU. Scalars of
    the type of `like` for a tensor."""
    if isinstance(yaw_degrees, Tensor):
        return _pairs(turns_of(yaw_degrees.to(like.device)).to(like.dtype))
    if torch.compiler.is_compiling():
        return _pairs(turns_of(yaw_degrees))
    return [cosine_sine(degrees) for degrees in yaw_degrees]


def _pairs(turns: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    return [(pair[0], pair[1]) for pair in turns.unbind()]


def middle_of(verts: Tensor) -> Tensor:
    """The middle of the bounding box [..., 1, 3]; bodies turn about the vertical line through it."""
    return (verts.amin(-2, keepdim=True) + verts.amax(-2, keepdim=True)) / 2


def check_yaws(op: str, yaw_degrees: Sequence[float] | Tensor) -> int:
    """The number of views R; a list or array of finite numbers, or a one-dimensional tensor, whose numbers are not looked at."""
    if isinstance(yaw_degrees, Tensor):
        if yaw_degrees.dim() != 1 or yaw_degrees.is_complex() or yaw_degrees.dtype == torch.bool:
            raise ValueError(
                f"{op}: yaw_degrees must be numbers of shape [R], got {str(yaw_degrees.dtype).removeprefix('torch.')} "
                f"{list(yaw_degrees.shape)}"
            )
        return yaw_degrees.shape[0]
    row = yaw_degrees.ndim == 1 if isinstance(yaw_degrees, np.ndarray) else isinstance(yaw_degrees, Sequence)
    if isinstance(yaw_degrees, str) or not row:
        raise TypeError(f"{op}: yaw_degrees must be a sequence of numbers or a tensor [R], got {type(yaw_degrees).__name__}")
    for value in yaw_degrees:
        if isinstance(value, bool) or not isinstance(value, NUMBERS):
            raise TypeError(f"{op}: yaw_degrees must hold numbers, got {type(value).__name__}")
        if not value - value == 0:  # math.isfinite stops torch.compile
            raise ValueError(f"{op}: yaw_degrees must be finite, got {value}")
    return len(yaw_degrees)


def turn(verts: Tensor, yaw_degrees: Sequence[float] | Tensor) -> Tensor:
    """Turn bodies about the vertical (y) axis through the middle of their x/z bounding box.

    A person who faces the camera (-z) at 0 faces image left at 90 and away at 180. The axis is (min + max) / 2, which no order
    of summation changes: deterministic. With a list of angles there is no transfer to the device.

    Arguments:
        verts: [..., V, 3] float32 or float64 in body axes (x right, y down, z forward).
        yaw_degrees: R angles in degrees, a sequence or array, or a tensor [R]: of one that is not finite NaN comes out.

    Returns:
        [..., R, V, 3]: x' = c x + s z, z' = -s x + c z relative to the axis, y kept.

    Gradient:
        To verts.

    Errors:
        TypeError, ValueError: an argument of the wrong type or shape, an angle of a sequence that is not finite.
    """
    shapes = Shapes("turn")
    shapes.tensor("verts", verts, _batched(verts), FLOATS)
    views = check_yaws("turn", yaw_degrees)
    if views == 0 or verts.shape[-2] == 0:
        return verts.new_zeros((*verts.shape[:-2], views, *verts.shape[-2:]))
    middle = middle_of(verts)  # [..., 1, 3]
    x, y, z = verts.unbind(-1)  # each [..., V]
    x, z = x - middle[..., 0], z - middle[..., 2]
    rows = [
        torch.stack((c * x + s * z + middle[..., 0], y, c * z - s * x + middle[..., 2]), -1)
        for c, s in cosines_sines(yaw_degrees, verts)
    ]
    return torch.stack(rows, -3)  # [..., R, V, 3]


def turn_each(verts: Tensor, yaw_degrees: Tensor) -> Tensor:
    """`turn` by an angle of each body's own: verts [B, V, 3], yaw_degrees [B] -> [B, V, 3]. Differentiable in verts."""
    if yaw_degrees.dim() != 1 or len(yaw_degrees) != len(verts):
        raise ValueError(f"turn_each: yaw_degrees must be [B={len(verts)}], got {list(yaw_degrees.shape)}")
    middle = middle_of(verts)  # [B, 1, 3]
    c, s = turns_of(yaw_degrees).to(verts.device, verts.dtype).unsqueeze(1).unbind(-1)  # each [B, 1]
    x, y, z = verts.unbind(-1)  # each [B, V]
    x, z = x - middle[..., 0], z - middle[..., 2]
    return torch.stack((c * x + s * z + middle[..., 0], y, c * z - s * x + middle[..., 2]), -1)


def project(verts: Tensor, camera: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Project body vertices to pixels, with depth: what `rasterize` takes.

        [3] weak perspective (s, tx, ty):  x_px = W/2 + H/2 s (X + tx), y_px = H/2 + H/2 s (Y + ty), depth = Z.
        [6] perspective (tx, ty, tz, f, cx, cy), f, cx, cy in image heights; with (X, Y, Z) = v + t:
            x_px = W/2 + H (f X/Z + cx), y_px = H/2 + H (f Y/Z + cy), depth = Z.

    Neither camera depends on the resolution.

    Arguments:
        verts: [..., V, 3] float32 or float64, body axes, metres.
        camera: [..., 3] or [..., 6] floating point, its leading dimensions broadcast against those of verts.
        image_size: (H, W).

    Returns:
        [..., V, 3]: x (right) and y (down) in pixels with the first centre at (0.5, 0.5), and depth. A vertex at or behind the
        eye of a perspective camera (Z <= 0) becomes NaN, and `rasterize` drops its triangles.

    Gradient:
        To verts and camera; a vertex behind the eye has none.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device.
    """
    shapes = Shapes("project")
    height, width = shapes.image_size(image_size)
    shapes.tensor("verts", verts, _batched(verts), FLOATS)
    check_camera("project", camera, verts)
    leading = verts.shape[:-2], camera.shape[:-1]
    if any(a != b and a != 1 and b != 1 for a, b in zip(*map(reversed, leading), strict=False)):
        expected = f"leading dimensions that broadcast against {list(leading[0])} of verts"
        raise ValueError(f"project: camera must have {expected}, got {list(leading[1])}")
    camera = camera.to(verts.dtype).unsqueeze(-2)  # [..., 1, 3 or 6]
    x, y, z = verts.unbind(-1)  # each [..., V]
    if camera.shape[-1] == 3:
        s, tx, ty = camera.unbind(-1)  # each [..., 1]
        scale = height / 2 * s
        return torch.stack((width / 2 + scale * (x + tx), height / 2 + scale * (y + ty), z + torch.zeros_like(s)), -1)
    tx, ty, tz, f, cx, cy = camera.unbind(-1)
    depth = z + tz
    ahead = depth > 0
    # NaN comes last: a division by it would spoil the camera's gradient, although nobody sees the vertex.
    depth = torch.where(ahead, depth, 1.0)
    columns = (width / 2 + height * (f * (x + tx) / depth + cx), height / 2 + height * (f * (y + ty) / depth + cy), depth)
    return torch.where(ahead.unsqueeze(-1), torch.stack(columns, -1), float("nan"))


def _batched(verts: Tensor) -> tuple[str | int, ...]:
    """The shape [..., V, 3] with as many leading dimensions as there are."""
    leading = verts.dim() - 2 if isinstance(verts, Tensor) else 0
    return (*(f"batch{i}" for i in range(leading)), "V", 3)


def check_camera(op: str, camera: Tensor, verts: Tensor) -> None:
    if not isinstance(camera, Tensor):
        raise TypeError(f"{op}: camera must be a torch.Tensor of shape [..., 3] or [..., 6], got {type(camera).__name__}")
    if not camera.is_floating_point():
        raise TypeError(f"{op}: camera must be floating point, got {str(camera.dtype).removeprefix('torch.')}")
    if camera.dim() == 0 or camera.shape[-1] not in (3, 6):
        raise ValueError(
            f"{op}: camera must have shape [..., 3] (s, tx, ty) or [..., 6] (tx, ty, tz, f, cx, cy), got {list(camera.shape)}"
        )
    if camera.device != verts.device:
        raise ValueError(f"{op}: camera must be on {verts.device} as verts is, got {camera.device}")
