"""The bodies of a data set in memory, and how a camera sees those of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from gcl_fast.errors import InputError
from gcl_fast.guides.shading import shaded
from gcl_fast.images import mesh_from_unit
from gcl_fast.meshes.foreground import PERSON
from gcl_fast.meshes.sources import MeshSource, VertexMeshes
from gcl_fast.ops import MeshFlow, Rasterized, mesh_flow_of_rasters, rasterize
from gcl_fast.ops.camera import project, turn_each
from gcl_fast.records import Record


@dataclass(frozen=True)
class ViewRasters:
    """Bodies as a camera sees them, and what `ops.rasterize` says of them.

    verts   [B, V, 3] in pixels with depth
    faces   [F, 3]
    raster  face ids, barycentric coordinates and depths [B, H, W, ...]
    mesh    [B, 1, H, W] in [-1, 1], the shaded body, as the generator reads it
    person  [B, 1, H, W] bool, in a photo's own view: where its mask shows the person, with clothes and hair; None: no masks
    """

    verts: Tensor
    faces: Tensor
    raster: Rasterized
    mesh: Tensor
    person: Tensor | None = None

    @property
    def silhouette(self) -> Tensor:
        """[B, 1, H, W] bool: where a body is seen."""
        return (self.raster.face_id >= 0)[:, None]

    @property
    def covered(self) -> Tensor:
        """[B, 1, H, W] bool: where the person is known to hide the background."""
        return self.silhouette if self.person is None else self.silhouette | self.person

    def rows(self, order: Tensor) -> ViewRasters:
        """Other rows of the same."""
        person = None if self.person is None else self.person[order]
        raster = Rasterized(*(part[order] for part in self.raster))
        return ViewRasters(self.verts[order], self.faces, raster, self.mesh[order], person)

    def flow_to(self, other: ViewRasters) -> MeshFlow:
        """Where each pixel of `other` lies in this view: row by row the same body, or two of the same triangles."""
        return mesh_flow_of_rasters(self.verts, self.faces, self.raster, other.raster)


class Bodies:
    """Vertices and cameras of all images of a list, on one device: a batch's are gathered there, nothing waits for the host.

    Memory: 6 bytes a vertex where the files hold float16, else 12 (Market-1501's training set with anny's bodies: 1 GiB), and a
    byte a pixel where they hold masks of the person.
    One set of triangles serves all, so that texture can go from one body to another.
    """

    def __init__(
        self,
        source: MeshSource,
        records: Sequence[Record],
        device: torch.device | str = "cpu",
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Reads every body. InputError where there are no vertices (rendered folders), or triangles differ."""
        if not isinstance(source, VertexMeshes):
            raise InputError(
                "model.guide 'texture' carries the photo's pixels over the vertices of its mesh, and these meshes are rendered "
                "pictures: use --model.guide mesh, or meshes with vertices (gcl-fast import-meshes)"
            )
        self.image_size = source.image_size
        vertices: list[Tensor] = []
        masks: list[Tensor | None] = []
        cameras, weak = torch.zeros(len(records), 6), torch.zeros(len(records), dtype=torch.bool)
        faces: Tensor | None = None
        for row, record in enumerate(records):
            body, triangles, camera = source.body(record)
            faces = triangles if faces is None else faces
            if faces.shape != triangles.shape or not torch.equal(faces, triangles) or body.shape != (vertices or [body])[0].shape:
                raise InputError(
                    f"model.guide 'texture' needs bodies of one set of triangles, but the mesh of {record.path} has others than "
                    f"that of {records[0].path}: use --model.guide mesh, or import all meshes from one estimator"
                )
            half = body.half()
            vertices.append(half if torch.equal(half.float(), body) else body)
            cameras[row, : len(camera)], weak[row] = camera, len(camera) == 3
            mask = source.mask(record)
            masks.append(None if mask is None else mask[None] > PERSON)
            if progress is not None:
                progress(row + 1, len(records))
        narrow = all(body.dtype == torch.float16 for body in vertices)
        self.vertices = torch.stack([body if narrow else body.float() for body in vertices]).to(device)  # [N, V, 3]
        self.cameras, self.weak = cameras.to(device), weak.to(device)
        self.faces = torch.zeros(0, 3, dtype=torch.int32) if faces is None else faces.to(device)
        self.masks = None  # [N, 1, H, W] bool
        if any(mask is not None for mask in masks):
            nobody = torch.zeros(1, *self.image_size, dtype=torch.bool)
            self.masks = torch.stack([nobody if mask is None else mask for mask in masks]).to(device)
        self._kinds = (bool(weak.any()), not bool(weak.all()))  # weak perspective, perspective

    def seen(self, index: Tensor, yaws: Tensor | None = None) -> ViewRasters:
        """The bodies `index` [B] int64 in their photos' views, or each turned by its angle in yaws [B], degrees."""
        body, cameras, weak = self.vertices[index].float(), self.cameras[index], self.weak[index]
        if yaws is not None:
            body = turn_each(body, yaws)
        verts = self._project(body, cameras, weak)
        raster = rasterize(verts, self.faces, self.image_size)
        mesh = mesh_from_unit(shaded(raster.face_id, body, self.faces, cameras[:, :3], weak))
        person = self.masks[index] if self.masks is not None and yaws is None else None
        return ViewRasters(verts, self.faces, raster, mesh, person)

    def rolled(self, shift: int) -> Bodies:
        """The same bodies in another order, as `torch.Tensor.roll` moves rows."""
        other = copy(self)
        other.vertices, other.cameras, other.weak = (part.roll(shift, 0) for part in (self.vertices, self.cameras, self.weak))
        other.masks = None if self.masks is None else self.masks.roll(shift, 0)
        return other

    def _project(self, verts: Tensor, cameras: Tensor, weak: Tensor) -> Tensor:
        some_weak, some_perspective = self._kinds
        if not some_weak:
            return project(verts, cameras, self.image_size)
        flat = project(verts, cameras[:, :3], self.image_size)
        if not some_perspective:
            return flat
        return torch.where(weak[:, None, None], flat, project(verts, cameras, self.image_size))
