# SPDX-License-Identifier: Apache-2.0
"""
Where the cells of a cube are seen: the geometry that all networks share.

Points of the cube are given in cube coordinates, x right, y down, z away from the camera, each
from -0.5 to 0.5. In units of the anchor's depth the cube is twice the half field wide, so nothing
here depends on how far the object is away.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor

from img2scene_ros.models.crop import CENTER_BEHIND_ANCHOR


def cell_centers(resolution: int, device: torch.device | str = 'cpu') -> Tensor:
    """Return the centres of the cells, ordered [z, y, x]: (R^3, 3), x y z, cube coordinates."""
    along = (torch.arange(resolution, device=device) + 0.5) / resolution - 0.5
    z, y, x = torch.meshgrid(along, along, along, indexing='ij')
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


def seen_at(points: Tensor, half_field: Tensor, size: int) -> Tensor:
    """
    Return the pixels of a crop in which points of its cube are seen, as `CropView.camera` has it.

    :param points: (B, N, 3), cube coordinates
    :param half_field: (B,) tangent of half the angle that the crop spans
    :param size: pixels along a side; pixel (0, 0) is the centre of the upper left one
    :return: (B, N, 2) pixels; NaN for points that are not in front of the camera
    """
    depth = 1.0 + 2.0 * half_field[:, None, None] * (CENTER_BEHIND_ANCHOR + points[..., 2:])
    return points[..., :2] * size / torch.where(depth > 1e-6, depth, torch.nan) + (size - 1) / 2.0


def unproject(features: Tensor, size: int, pixels: Tensor) -> Tensor:
    """
    Look up a picture's features at pixels: bilinear, zero outside of the picture.

    The map covers the whole picture whatever its own resolution. Corners are not aligned
    (align_corners=False): the outer edges of the outer pixels coincide.

    :param features: (B, C, H, W)
    :param size: pixels along a side of the picture that `pixels` are of
    :param pixels: (B, N, 2), NaN for points without a place in the picture
    :return: (B, C, N) float32
    """
    places = torch.nan_to_num((2.0 * pixels + 1.0) / size - 1.0, nan=-1e3).clamp(-1e3, 1e3)
    return functional.grid_sample(
        features.float(), places[:, None].float(), 'bilinear', 'zeros', align_corners=False,
    )[:, :, 0]


def sample_frustum(frustum: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
    """
    Look up a volume whose cells are pixels times depth slices at points of the cube.

    The slices divide the cube's depth evenly, each one is seen through the whole crop. Trilinear,
    zero outside of the frustum, corners not aligned.

    :param frustum: (B, C, D, H, W)
    :param half_field: (B,)
    :param points: (B, N, 3), cube coordinates
    :return: (B, C, N) float32
    """
    places = torch.cat([2.0 * seen_at(points, half_field, 1), 2.0 * points[..., 2:]], dim=-1)
    places = torch.nan_to_num(places, nan=-1e3).clamp(-1e3, 1e3)
    return functional.grid_sample(
        frustum.float(), places[:, None, None].float(), 'bilinear', 'zeros', align_corners=False,
    )[:, :, 0, 0]


def resample_frustum(
    frustum: Tensor, half_field: Tensor, resolution: int, shift: Tensor | None = None,
) -> Tensor:
    """
    Look up a frustum at the centres of all cells of the cube: as `sample_frustum`, in products.

    A slice of the cube is seen at one scale, so trilinear looking up comes apart into one matrix
    per axis. Forwards and backwards that is five times as fast as looking up points.

    :param frustum: (B, D, H, W)
    :param half_field: (B,)
    :param resolution: R, cells along a side
    :param shift: (3,) z, y, x: looks so many cells off their centres
    :return: (B, R, R, R) float32, [z, y, x]
    """
    _, slices, height, width = frustum.shape
    z, y, x = axes_of(resolution, frustum.device, shift)
    depth = 1.0 + 2.0 * half_field[:, None] * (CENTER_BEHIND_ANCHOR + z)  # (B, R)
    depth = torch.where(depth > 1e-6, depth, torch.inf)[..., None]
    with torch.autocast(frustum.device.type, enabled=False):
        planes = linear_weights(z, slices) @ frustum.float().flatten(2)
        planes = planes.unflatten(2, (height, width))  # (B, R, H, W)
        return linear_weights(y / depth, height) @ planes @ linear_weights(x / depth, width).mT


def axes_of(
    resolution: int, device: torch.device | str, shift: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where cells lie along z, y and x, (R,) cube coordinates; `shift` in cells."""
    along = (torch.arange(resolution, device=device) + 0.5) / resolution - 0.5
    return (along,) * 3 if shift is None else tuple(along + one / resolution for one in shift)


def linear_weights(places: Tensor, count: int) -> Tensor:
    """
    Return the matrix that interpolates linearly between the cells of an axis; zero outside.

    :param places: (...) from -0.5 to 0.5 along the axis, corners not aligned
    :param count: C, cells of the axis
    :return: (..., C)
    """
    cells = torch.arange(count, device=places.device)
    distance = ((places + 0.5) * count - 0.5)[..., None] - cells
    return (1.0 - distance.abs()).clamp(min=0.0)


def sample_cube(volume: Tensor, points: Tensor) -> Tensor:
    """
    Look up a volume aligned with the cube at points of it; trilinear, the border goes on outside.

    :param volume: (B, C, D, H, W)
    :param points: (B, N, 3), cube coordinates
    :return: (B, C, N) float32
    """
    return functional.grid_sample(
        volume.float(), 2.0 * points[:, None, None].float(), 'bilinear', 'border',
        align_corners=False,
    )[:, :, 0, 0]
