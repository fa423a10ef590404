# SPDX-License-Identifier: Apache-2.0
"""
Objects as one GLB file: binary glTF 2.0, metres, y up.

Every object is a node with its own name and extras; a mesh or texture that several objects share
is written once. Normals are those of the closed mesh, so seams of charts do not show; vertex
colours are linear light. (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html)
"""

import json
from collections.abc import Hashable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np

from img2scene_ros.mesh.colors import linear
from img2scene_ros.rendering.normals import vertex_normals
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Texture

OBJECT_UP, OBJECT_FRONT = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])

_KINDS = {'uint32': 5125, 'float32': 5126}
_TYPES = {1: 'SCALAR', 2: 'VEC2', 3: 'VEC3'}
_VERTICES, _INDICES = 34962, 34963  # what a buffer view is used for
_DULL = {'metallicFactor': 0.0, 'roughnessFactor': 0.9}
_LINEAR, _MIPMAPS, _CLAMP = 9729, 9987, 33071


@dataclass(frozen=True, eq=False)
class Node:
    """An object at its place."""

    name: str
    model: ObjectModel
    pose: np.ndarray  # (4, 4), takes the object's glTF axes to the file's
    extras: dict[str, Any]  # what else is to be known about it, as in JSON


def gltf_rotation(up: np.ndarray, front: np.ndarray) -> np.ndarray:
    """
    Return the change of axes to glTF: y up, +z the side to look at first.

    :param up: (3,) unit length, in the axes to leave; becomes +y
    :param front: (3,) towards the viewer; its part square to `up` becomes +z
    :return: (3, 3), turns the axes to leave into glTF's
    """
    x = np.cross(up, front)
    x = x / np.linalg.norm(x)
    return np.stack([x, up, np.cross(x, up)])


def glb(nodes: Sequence[Node]) -> bytes:
    """Return a GLB file with the objects as children of one root."""
    writer = _Writer()
    children = [writer.node(node) for node in nodes]
    return writer.file(children)


def split_corners(
    faces: np.ndarray, texture: Texture,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Give each vertex one place in the texture: those on the edge of a chart are split.

    :param faces: (F, 3) int
    :return: the vertex of each new one (N,), its uv (N, 2), and faces of new ones (F, 3)
    """
    corners, uv = faces.ravel().astype(np.int64), texture.uv.reshape(-1, 2)
    fine = np.round(uv.astype(float) * (2 ** 20)).astype(np.int64)
    key = (corners << 42) + (fine[:, 0] << 21) + fine[:, 1]
    _, first, split = np.unique(key, return_index=True, return_inverse=True)
    return corners[first], uv[first], split.reshape(-1, 3)


@dataclass
class _Writer:
    """Gathers the parts of a file; what was added before is found by its object again."""

    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    length: int = 0
    known: dict[Hashable, int] = field(default_factory=dict)

    def node(self, node: Node) -> int:
        """Add an object; return the index of its node."""
        values = {
            'name': node.name, 'mesh': self._mesh(node.model, node.name), 'extras': node.extras}
        if not np.array_equal(node.pose, np.eye(4)):
            values['matrix'] = node.pose.T.ravel().tolist()
        return self._add('nodes', values)

    def file(self, children: list[int]) -> bytes:
        """Return the file; the root holds all nodes."""
        root = self._add('nodes', {'name': 'world'} | ({'children': children} if children else {}))
        tree = {
            'asset': {'version': '2.0', 'generator': 'img2scene'}, 'scene': 0,
            'scenes': [{'nodes': [root]}]} | self.parts
        if self.length:
            tree['buffers'] = [{'byteLength': self.length}]
        text = json.dumps(tree, separators=(',', ':')).encode()
        text += b' ' * (-len(text) % 4)
        chunks = [(b'JSON', text)] + ([(b'BIN\0', b''.join(self.chunks))] if self.length else [])
        body = b''.join(
            len(data).to_bytes(4, 'little') + kind + data for kind, data in chunks)
        return b'glTF' + (2).to_bytes(4, 'little') + (12 + len(body)).to_bytes(4, 'little') + body

    def _mesh(self, model: ObjectModel, name: str) -> int:
        if id(model) in self.known:
            return self.known[id(model)]
        rotation = gltf_rotation(OBJECT_UP, OBJECT_FRONT)
        vertices = (model.vertices @ rotation.T).astype(np.float32)
        normals = vertex_normals(vertices.astype(float), model.faces)
        normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 1.0, 0.0)  # vertices of no face
        if model.texture is None:
            faces = model.faces
            colors = {'COLOR_0': self._accessor(linear(model.colors))}
        else:
            index, uv, faces = split_corners(model.faces, model.texture)
            vertices, normals = vertices[index], normals[index]
            colors = {'TEXCOORD_0': self._accessor(uv.astype(np.float32))}
        primitive = {
            'attributes': {
                'POSITION': self._accessor(vertices, bounds=True),
                'NORMAL': self._accessor(normals.astype(np.float32))} | colors,
            'indices': self._accessor(faces.astype(np.uint32).reshape(-1, 1), _INDICES),
            'material': self._material(model.texture)}
        self.known[id(model)] = self._add(
            'meshes', {'name': name, 'primitives': [primitive]})
        return self.known[id(model)]

    def _material(self, texture: Texture | None) -> int:
        if id(texture) not in self.known:
            surface: dict[str, Any] = dict(_DULL)
            if texture is not None:
                surface['baseColorTexture'] = {'index': self._texture(texture)}
            self.known[id(texture)] = self._add('materials', {'pbrMetallicRoughness': surface})
        return self.known[id(texture)]

    def _texture(self, texture: Texture) -> int:
        if 'sampler' not in self.known:
            self.known['sampler'] = self._add('samplers', {
                'magFilter': _LINEAR, 'minFilter': _MIPMAPS, 'wrapS': _CLAMP, 'wrapT': _CLAMP})
        image = self._add(
            'images', {'bufferView': self._view(texture.png), 'mimeType': 'image/png'})
        return self._add('textures', {'source': image, 'sampler': self.known['sampler']})

    def _accessor(
        self, values: np.ndarray, target: int = _VERTICES, bounds: bool = False,
    ) -> int:
        """Add rows of numbers, (N, 1) to (N, 3) float32 or uint32."""
        data = np.ascontiguousarray(values)
        accessor = {
            'bufferView': self._view(data.tobytes(), target), 'count': len(data),
            'componentType': _KINDS[data.dtype.name], 'type': _TYPES[data.shape[1]]}
        if bounds:
            accessor |= {'min': data.min(axis=0).tolist(), 'max': data.max(axis=0).tolist()}
        return self._add('accessors', accessor)

    def _view(self, data: bytes, target: int | None = None) -> int:
        view = {'buffer': 0, 'byteOffset': self.length, 'byteLength': len(data)}
        data += bytes(-len(data) % 4)
        self.chunks.append(data)
        self.length += len(data)
        return self._add('bufferViews', view | ({'target': target} if target else {}))

    def _add(self, kind: str, part: dict[str, Any]) -> int:
        self.parts.setdefault(kind, []).append(part)
        return len(self.parts[kind]) - 1
