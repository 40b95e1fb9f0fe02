"""Meshes: where they come from and how they are seen. The Anny model is in `gcl_fast.meshes.anny_body`, loaded when used."""

from gcl_fast.meshes.mesh_files import Mesh, read_mesh, write_faces, write_mesh
from gcl_fast.meshes.sources import MeshSource, RenderedFolders, VertexMeshes, mesh_key, open_mesh_source
from gcl_fast.ops.camera import project, turn

__all__ = [
    "Mesh",
    "MeshSource",
    "RenderedFolders",
    "VertexMeshes",
    "mesh_key",
    "open_mesh_source",
    "project",
    "read_mesh",
    "turn",
    "write_faces",
    "write_mesh",
]
