# SPDX-License-Identifier: Apache-2.0
"""
Marker arrays as bytes, as DDS carries them (CDR, little-endian).

rclpy serializes a list of points one by one, which takes tens of milliseconds per mesh and holds
up all of Python. Here it serializes a marker without its points; those come from numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

import numpy as np
from rclpy.serialization import serialize_message
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

_HEAD = b'\x00\x01\x00\x00'  # little-endian CDR; places are counted from its end
# What is behind points and colours of a marker of triangles. In one without names they are two
# empty lists (8 bytes) behind stamp, names, kind (36 bytes), pose, scale, color (at 40) and rest.
_TAIL = serialize_message(Marker())[len(_HEAD) + 148 + 8:]


@dataclass(frozen=True, eq=False)
class Triangles:
    """
    Corners of a TRIANGLE_LIST.

    - points: (N, 3) float64, metres
    - colors: (N, 4) float32, RGBA
    """

    points: np.ndarray
    colors: np.ndarray


def triangles_from_mesh(
    vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray,
) -> Triangles:
    """
    Return the corners of a mesh.

    :param vertices: (V, 3) metres
    :param faces: (F, 3) indices of vertices
    :param colors: (F, 3, 3) uint8, RGB of every corner; RViz draws them unlit
    """
    points = vertices.astype('<f8')[faces.ravel()]
    shades = np.ones((len(points), 4), '<f4')
    shades[:, :3] = colors.reshape(-1, 3) / np.float32(255.0)
    return Triangles(points, shades)


def array_bytes(markers: Sequence[tuple[Marker, Triangles | None]]) -> bytes:
    """
    Serialize a MarkerArray of markers and the triangles that belong into some of them.

    Those have nothing behind their colours: no texture, no text, no mesh.
    """
    data = bytearray(_HEAD + pack('<I', len(markers)))
    for marker, triangles in markers:
        _pad(data, 4)
        # What has 8 bytes lies at multiples of 8: so there are two ways to serialize a marker.
        is_odd = (len(data) - len(_HEAD)) % 8 == 4
        data += (serialize_message(MarkerArray(markers=[marker]))[len(_HEAD) + 4:] if is_odd
                 else serialize_message(marker)[len(_HEAD):])
        if triangles is not None:
            del data[-len(_TAIL) - 8:]  # with two empty lists
            count = pack('<I', len(triangles.points))
            data += count
            _pad(data, 8)
            data += triangles.points.tobytes() + count + triangles.colors.tobytes() + _TAIL
    return bytes(data)


def _pad(data: bytearray, size: int) -> None:
    data += bytes(-(len(data) - len(_HEAD)) % size)
