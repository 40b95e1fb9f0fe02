"""One estimate -> a mesh in the axes and with the camera of the mesh files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcl_fast.errors import InputError
from gcl_fast.meshes.importing.estimates import Estimate
from gcl_fast.meshes.importing.estimator_cameras import reshape_image
from gcl_fast.meshes.mesh_files import Mesh, problem_of_mesh
from gcl_fast.meshes.smpl import SMPL


@dataclass
class MeshConverter:
    """What the user says of the estimates beyond what their files hold; see `import_meshes`."""

    smpl: SMPL | None
    faces: np.ndarray | None
    axes: str
    focal: float | None
    fit: bool
    image_size: tuple[int, int]

    def convert(self, estimate: Estimate, size: tuple[int, int]) -> Mesh:
        """The mesh as it appears in the resized image; size (height, width) of the image on disk. InputError says what is
        missing or wrong."""
        vertices = self._vertices(estimate)
        faces = self._faces(estimate, len(vertices))
        if self.axes == "y-up":
            vertices = vertices * np.array([1.0, -1.0, -1.0])
        vertices, camera = self._camera(estimate, vertices, size)
        if len(camera) == 6 and (vertices[:, 2] + camera[2]).min() <= 0:
            raise InputError("it reaches behind the camera (y-up files need --axes y-up)")
        vertices, camera = reshape_image(vertices, camera, estimate.size or size, self.image_size)
        with np.errstate(over="ignore"):
            mesh = Mesh(np.asarray(vertices, np.float32), np.asarray(camera, np.float32), faces)
        problem = problem_of_mesh(mesh)
        if problem:
            raise InputError(problem)
        return mesh

    def _vertices(self, estimate: Estimate) -> np.ndarray:
        if estimate.vertices is not None:
            return estimate.vertices
        if self.smpl is None:
            raise InputError(
                f"{estimate.format} gives pose and shape here: name the SMPL model that makes vertices of them (--smpl)"
            )
        if estimate.pose is None or estimate.shape is None:
            raise InputError("neither vertices nor pose and shape are in the file")
        return self.smpl.vertices(estimate.pose[None], estimate.shape[None])[0]

    def _faces(self, estimate: Estimate, count: int) -> np.ndarray:
        """Triangles of the estimate, else the user's, else the model's if they fit `count` vertices."""
        if estimate.faces is not None:
            return estimate.faces
        if self.faces is not None:
            return self.faces
        if self.smpl is not None and len(self.smpl.template) == count:
            return self.smpl.faces
        raise InputError("no triangles: name a faces file (--faces), or the SMPL model (--smpl)")

    def _camera(self, estimate: Estimate, vertices: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and camera: the file's, else by the user's focal length, else fitted to the image's height."""
        camera = estimate.camera_of(size)
        if camera is not None:
            return vertices, camera
        low, high = vertices.min(0), vertices.max(0)
        middle = (low + high) / 2
        if self.focal is not None:  # the vertices stand before the camera: the body about its own middle
            return vertices - middle, np.array([*middle, self.focal / size[0], 0, 0], np.float32)
        if self.fit:
            return vertices, np.array([1.9 / max(high[1] - low[1], 1e-6), *(-middle)[:2]], np.float32)
        raise InputError(
            "no camera in the file: give its focal length (--focal), or ask for one that fits the body into the image (--fit)"
        )
