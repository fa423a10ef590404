# SPDX-License-Identifier: Apache-2.0
"""What all networks have in common: a crop in, an occupancy logit per point of its cube out."""

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch import nn

from img2scene_ros.models.geometry import cell_centers

# Most cells of a cube are empty: training starts from a share of 5 %.
EMPTY_LOGIT = -3.0
POINTS_PER_CHUNK = 65536  # of one crop, at once; bounds the memory at high resolutions


class OccupancyNetwork(nn.Module):
    """
    Turns crops into occupancies.

    A network looks at the pictures once (`encode`) and can then be asked for the logit of any
    point of the cube (`query`), so the resolution is free.

    - samples_per_cell: along a side; 1 for networks whose answer for a cell's centre already says
      whether the solid reaches into it, more for those that tell points apart
    """

    # names of the layers that read inputs or give answers; what lies between is `hidden`, which
    # some optimizers treat in another way
    outer_layers: tuple[str, ...] = ()
    samples_per_cell = 1

    def encode(self, pictures: Tensor, half_field: Tensor) -> Tensor:
        """
        Look at crops.

        :param pictures: (B, 6, S, S), see `models.channels`
        :param half_field: (B,) tangent of half the angle that a crop spans
        :return: features, (B, ...)
        """
        raise NotImplementedError

    def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
        """
        Return the occupancy logits of points.

        :param features: what `encode` returned
        :param half_field: (B,)
        :param points: (B, N, 3), cube coordinates, see `models.geometry`
        :return: (B, N) float32
        """
        raise NotImplementedError

    def forward(
        self, pictures: Tensor, half_field: Tensor, resolution: int = 32,
        points: Tensor | None = None,
    ) -> Tensor:
        """
        Return the occupancy logits of the cells of the cubes, or of some points.

        :param pictures, half_field: as `encode`
        :param resolution: cells along a side
        :param points: (N, 3), cube coordinates; look at these instead
        :return: (B, R, R, R) float32, [z, y, x]; or (B, N)
        """
        features = self.encode(pictures, half_field)
        if points is not None:
            return self.query(features, half_field, points.expand(len(features), -1, -1))
        return self.query_cells(features, half_field, resolution)

    def predict(self, pictures: Tensor, half_field: Tensor, resolution: int = 32) -> Tensor:
        """
        Return the occupancy logits of the cells, more certain than those of `forward`.

        They are the mean of what the network says of a crop and of its mirror image: the crop's
        axis runs through the middle of picture and cube, so one mirrors the other exactly.
        """
        logits = self(torch.cat([pictures, pictures.flip(-1)]), half_field.repeat(2), resolution)
        plain, mirrored = logits.float().chunk(2)
        return (plain + mirrored.flip(-1)) / 2

    def reached(self, pictures: Tensor, half_field: Tensor, resolution: int = 32) -> Tensor:
        """Return logits that the solid reaches into the cells, as `predict`; all networks can."""
        samples = self.samples_per_cell
        logits = self.predict(pictures, half_field, resolution * samples)
        return functional.max_pool3d(logits[:, None], samples)[:, 0]

    def query_cells(
        self, features: Tensor, half_field: Tensor, resolution: int,
    ) -> Tensor:
        """Return what `query` tells of the cells' centres: (B, R, R, R) float32, [z, y, x]."""
        centers = cell_centers(resolution, features.device)
        logits = torch.cat([
            self.query(features, half_field, part.expand(len(features), -1, -1))
            for part in centers.split(POINTS_PER_CHUNK)], dim=1)
        return logits.reshape(-1, resolution, resolution, resolution)
