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


@dataclass(frozen=True, eq=False)
class Triangles:
    """
    Points and colours of a TRIANGLE_LIST.

    - count: number of points
    - points: three float64 each
    - colors: four float32 each
    """

    count: int
    points: bytes
    colors: bytes


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
    return Triangles(len(points), points.tobytes(), shades.tobytes())


def array_bytes(markers: Sequence[tuple[Marker, Triangles | None]]) -> bytes:
    """Serialize a MarkerArray of markers and the triangles that belong into some of them."""
    data = bytearray(_HEAD + pack('<I', len(markers)))
    for marker, triangles in markers:
        _pad(data, 4)
        # What has 8 bytes lies at multiples of 8: so there are two ways to serialize a marker.
        is_odd = (len(data) - len(_HEAD)) % 8 == 4
        alone = (serialize_message(MarkerArray(markers=[marker]))[len(_HEAD) + 4:] if is_odd
                 else serialize_message(marker)[len(_HEAD):])
        if triangles is None:
            data += alone
            continue
        place = _place_of_points(marker, 4 if is_odd else 0)
        data += alone[:place] + pack('<I', triangles.count)
        _pad(data, 8)
        data += triangles.points + pack('<I', triangles.count) + triangles.colors
        data += alone[place + 8:]  # behind the two empty lists
    return bytes(data)


def _pad(data: bytearray, size: int) -> None:
    data += bytes(-(len(data) - len(_HEAD)) % size)


def _place_of_points(marker: Marker, start: int) -> int:
    """Return where the list of points is in a serialized marker, by visualization_msgs/Marker."""
    place = start + 8  # the stamp
    for text in (marker.header.frame_id, marker.ns):
        place += -place % 4 + 4 + len(text.encode()) + 1
    place += -place % 4 + 12  # id, type, action
    place += -place % 8 + 80  # pose, scale
    place += 16 + 8 + 1  # color, lifetime, frame_locked
    return place + -place % 4 - start
