"""A mesh as depth and as shaded views, and gradients through the rasterizer.

python examples/rasterize_a_mesh.py --out body.png              # the built-in body (needs the package anny)
python examples/rasterize_a_mesh.py --mesh bunny.obj --out bunny.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from gcl_fast import ops
from gcl_fast.images import pillow, unit_to_uint8
from gcl_fast.meshes import project

YAWS = (0, 45, 90, 180)


def load(path: Path | None) -> tuple[Tensor, Tensor]:
    """vertices [V, 3] with x right, y down, z away from the viewer, about the origin and 2 high; faces [F, 3]."""
    if path is None:
        from gcl_fast.meshes.anny_body import AnnyBody

        verts, faces = AnnyBody().template, AnnyBody().faces
    else:
        from gcl_fast.meshes.importing.mesh_formats import read_surface

        points, triangles = read_surface(path)
        verts, faces = torch.from_numpy(points) * torch.tensor([1.0, -1.0, -1.0]), torch.from_numpy(triangles)  # y was up
    low, high = verts.amin(0), verts.amax(0)
    return (verts - (low + high) / 2) * (2 / (high - low)[1]), faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help=".obj or .ply with y up; default: the built-in body")
    parser.add_argument("--out", type=Path, default=Path("mesh.png"))
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), metavar=("H", "W"))
    parser.add_argument("--steps", type=int, default=20, help="gradient steps")
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    verts, faces = load(options.mesh)

    camera = torch.tensor([0.9, 0.0, 0.0])  # weak perspective (s, tx, ty): 0.9 of the image's height
    face_id, _, depth = ops.rasterize(project(verts[None], camera[None], size), faces, size)  # [1, H, W] each
    body = face_id[0] >= 0
    near, far = depth[0, body].min(), depth[0, body].max()
    nearness = torch.where(body, 1 - 0.8 * (depth[0] - near) / (far - near + 1e-9), 0.0)  # white is near, background black
    shaded = ops.render_mesh(verts[None], faces, camera[None], YAWS, size)[0]  # [R, 1, H, W] in [0, 1]
    picture = torch.cat([nearness[None], *shaded], dim=2)  # [1, H, (1 + R) * W]
    pillow().fromarray(unit_to_uint8(picture)).save(options.out)
    print(f"depth and views at {', '.join(map(str, YAWS))} degrees: {options.out}")

    # Depth has a gradient to the vertices: a mesh moved by a few centimetres finds back to the depth that was seen.
    shift = torch.tensor([0.02, -0.02, 0.1], requires_grad=True)
    optimizer = torch.optim.SGD([shift], lr=0.2)
    for step in range(options.steps):
        depth_now = ops.rasterize(project((verts + shift)[None], camera[None], size), faces, size).depth[0]
        both = body & depth_now.isfinite()
        loss = (depth_now[both] - depth[0, both]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (0, options.steps - 1):
            print(f"step {step}: squared depth error {loss.item():.2e}, shift {[round(x, 3) for x in shift.tolist()]}")


if __name__ == "__main__":
    main()
