# SPDX-License-Identifier: Apache-2.0
"""
The support plane: the table or floor that objects stand on.

Planes are found one after another by RANSAC over oriented points, in a coarse picture. Those that
are parallel are one hypothesis of where up is; the one whose planes carry most wins. A plane
carries what touches it: objects before a wall do not, and what stands on a book stands on the
table, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Search: width of the coarse picture in pixels, points and hypotheses of RANSAC, planes at most,
# and the least share of the picture that each has.
_WIDTH, _SAMPLES, _HYPOTHESES, _MAX_PLANES, _MIN_SHARE = 320, 12000, 200, 8, 0.02
# Normals of one plane agree by this angle, planes of one direction and a given up by that.
_ALIGNED = np.cos(np.radians(25.0))
_PARALLEL = np.cos(np.radians(15.0))
# Without a given up, cameras are mostly held level: roll below 40 degrees, no plane seen head-on.
# Other directions have to carry so many times more; of level ones a share of the extent counts.
_LEVEL_ROLL, _HEAD_ON, _UNUSUAL = np.sin(np.radians(40.0)), np.sin(np.radians(15.0)), 4.0
_EXTENT = 0.02
# What is carried: least pixels of the coarse picture, of these in touch with the plane, and the
# greatest share of the picture's border that it takes; lowest and greatest height, height above
# the noise up to which it is in touch, and greatest extent [m].
_MIN_CARRIED, _MIN_TOUCHING, _MOST_AT_BORDER = 40, 5, 0.2
_LOWEST, _HIGHEST, _TOUCHING, _LARGEST = 0.01, 1.3, 0.02, 1.2
_HIDDEN_FOOT = 0.2  # metres above a plane of what stands on it and hides its own foot, at most
_DEVIATIONS = 4.0  # standard deviations of the depth that stand out of a plane
# A plane that ends within the picture, is narrower than this and no higher above another one than
# that is the top of an object [m].
_NARROW, _LOW = 0.45, 0.35
# A carrying plane above another one is the support (a table above the floor) when it has at least
# this share of the other's pixels.
_MIN_SHARE_OF_LOWER = 0.2
_FEW_READINGS = 0.05  # share of the picture; with less nothing can be found
# From frame to frame: a plane is held while this share of the pixels that showed it still does,
# and searched anew after so many frames. A fit takes so many readings at most.
_STILL_SEEN, _HELD, _FITTED = 0.9, 30, 40000


@dataclass(frozen=True, eq=False)
class _Candidate:
    """
    A plane of the coarse picture.

    - seen: (H, W) bool, the pixels on it
    - carried: how many pixels of things it carries, in touch with it
    - above: how many of things over it whose foot they hide themselves, as bowls do
    """

    plane: SupportPlane
    seen: np.ndarray
    carried: int
    above: int

    @property
    def carries(self) -> bool:
        """Tell whether something stands on it, if it is horizontal."""
        return self.carried + self.above > 0


class HeldSupport:
    """Finds the support in frame after frame: a plane that is still there is only fitted again."""

    def __init__(self) -> None:
        self._held: _Candidate | None = None
        self._age = 0

    def find(self, frame: Frame) -> SupportPlane | None:
        """Find the plane that objects stand on, as `find_support`."""
        self._age += 1
        if not frame.has_depth:
            return None
        held = self._held
        if held is not None and self._age <= _HELD and _is_still_seen(frame, held):
            self._held = replace(held, plane=_fitted_again(frame, held))
        else:
            self._held, self._age = _found(frame), 0
        return None if self._held is None else self._held.plane


def find_support(frame: Frame) -> SupportPlane | None:
    """
    Find the plane that objects stand on.

    :return: None when the depth image shows no plane that may be horizontal
    """
    return HeldSupport().find(frame)


def _is_still_seen(frame: Frame, held: _Candidate) -> bool:
    """Tell whether a plane of an earlier frame is where it was, and may still be horizontal."""
    part = _every_nth(frame)
    depth = measured(frame.depth)[part]
    if depth.shape != held.seen.shape or (
            frame.up is not None and held.plane.normal @ frame.up <= _ALIGNED):
        return False
    off = np.abs(held.plane.height(measured(frame.points)[part][held.seen]))
    is_on_plane = off < 3.0 * frame.depth_std(depth[held.seen])
    return bool(is_on_plane.mean() > _STILL_SEEN)


def _found(frame: Frame) -> _Candidate | None:
    """Search the support in a coarse picture, and fit it to all readings."""
    coarse = _coarse(frame)
    normals = surface_normals(coarse)
    if np.count_nonzero(np.isfinite(normals[..., 0])) < 125:
        return None
    candidates = _candidates(coarse, normals)
    if frame.up is not None:
        candidates = [one for one in candidates if one.plane.normal @ frame.up > _ALIGNED]
    best = _lowest_that_carries(_of_one_direction(candidates, frame.up))
    return None if best is None else replace(best, plane=_at_full_resolution(frame, best))


def _every_nth(frame: Frame) -> tuple[slice, slice]:
    """Return which pixels of a frame make the coarse picture."""
    step = max(1, round(frame.shape[1] / _WIDTH))
    height, width = (size // step * step for size in frame.shape)
    return np.s_[:height:step, :width:step]


def why_nothing(frame: Frame, support: SupportPlane | None) -> str:
    """Tell in one sentence why a depth image shows no objects, and what to do about it."""
    depth = measured(frame.depth)
    read = depth[np.isfinite(depth)]
    if len(read) < _FEW_READINGS * depth.size:
        return (f'no object: only {len(read) / depth.size:.0%} of the depth image has readings; '
                "check the camera's range and that nothing covers it")
    distance = f'the median distance is {np.median(read):.2f} m'
    if support is None:
        return ('no object: the depth image shows no plane that things may stand on '
                f'({distance}); point the camera at a table or floor, and check the unit of the '
                'depth')
    area = 0.0
    if support.hull is not None:
        area = float(cv2.contourArea(
            (support.hull @ support.axes().T).astype(np.float32).reshape(-1, 1, 2)))
    return (f'no object: a support of {area:.2f} square metres is seen, but nothing stands out '
            f'of it ({distance}); move the camera closer, or lower tabletop.min_height or '
            'tabletop.min_size')


def _coarse(frame: Frame) -> Frame:
    """Return every n-th pixel of a frame."""
    part = _every_nth(frame)
    depth = np.ascontiguousarray(measured(frame.depth)[part])
    return replace(frame, color=frame.color[part], depth=depth, support=None,
                   camera=frame.camera.binned(part[0].step, part[1].step))


def _candidates(coarse: Frame, normals: np.ndarray) -> list[_Candidate]:
    """
    Return planes of any direction, largest first.

    A plane does not carry a larger one: the side of a tote not its bottom.
    """
    jumps = _depth_jumps(coarse)
    larger = np.zeros(coarse.shape, bool)
    found = []
    for plane, seen in sorted(
            _planes(coarse, normals), key=lambda one: -np.count_nonzero(one[1])):
        found.append(_Candidate(
            plane, seen, *_pixels_carried(coarse, plane, jumps | larger)))
        larger |= seen
    return found


def _of_one_direction(
    candidates: Sequence[_Candidate], up: np.ndarray | None,
) -> list[_Candidate]:
    """Return the candidates of the direction that carries most; without any, of level ones."""
    groups = [[other for other in candidates
               if other.plane.normal @ one.plane.normal > _PARALLEL] for one in candidates]
    evidence = [_evidence(group, up is not None) for group in groups]
    if any(evidence):
        return groups[int(np.argmax(evidence))]
    return [one for one in candidates if _is_seen_head_on(one.plane.normal)]


def _evidence(group: Sequence[_Candidate], is_up: bool) -> float:
    """
    Return how much speaks for a direction: what its planes carry, and how far they extend.

    The extent of planes that no camera held level takes for horizontal says nothing: walls.
    """
    carried = sum(one.carried for one in group)
    if is_up or _is_usual(group[0].plane.normal):
        return carried + _EXTENT * sum(np.count_nonzero(one.seen) for one in group)
    return carried / _UNUSUAL


def _is_usual(normal: np.ndarray) -> bool:
    """Tell whether a plane is horizontal before a camera that is held level."""
    return bool(abs(normal[0]) < _LEVEL_ROLL and normal[1] < -_HEAD_ON)


def _is_seen_head_on(normal: np.ndarray) -> bool:
    return bool(abs(normal[0]) < _LEVEL_ROLL and abs(normal[1]) <= _HEAD_ON)


def _lowest_that_carries(candidates: list[_Candidate]) -> _Candidate | None:
    """
    Choose among parallel planes, largest first.

    The largest wins, unless a large one above it carries objects (a table before the floor), or
    it carries nothing and there is one below it (the floor before a bed). A bed whose headboard
    stands on its mattress carries something, too, and is taken for the support.
    """
    candidates = [one for one in candidates if not _is_top_of_an_object(one, candidates)]
    if not candidates:
        return None
    best = candidates[0]
    for one in candidates:
        if not best.carries and _is_above(best.plane, one.plane):
            best = one
    for one in candidates:
        is_large = one.seen.sum() > _MIN_SHARE_OF_LOWER * best.seen.sum()
        if one.carries and _is_above(one.plane, best.plane) and (is_large or not best.carries):
            best = one
    return best


def _is_top_of_an_object(one: _Candidate, others: Sequence[_Candidate]) -> bool:
    """Tell whether a plane is small, seen to its end, and stands over one that carries."""
    rows, columns = np.nonzero(one.seen)
    height, width = one.seen.shape
    margin = max(2, width // 40)
    is_cut = bool(rows.min() < margin or rows.max() >= height - margin
                  or columns.min() < margin or columns.max() >= width - margin)
    hull = measured(one.plane.hull)
    extent = np.ptp(hull @ one.plane.axes().T, axis=0).max()
    return not is_cut and extent < _NARROW and any(
        other.carries and _is_above(one.plane, other.plane)
        and other.plane.height(hull).mean() < _LOW
        and other.plane.is_over(hull).mean() > 0.5 for other in others)


def _is_above(plane: SupportPlane, other: SupportPlane) -> bool:
    return plane.height(measured(other.hull)).mean() < -0.02


def _depth_jumps(frame: Frame) -> np.ndarray:
    """Return the pixels whose right or lower neighbour is on another surface, (H, W) bool."""
    depth = measured(frame.depth)
    reach = 0.01 + 3.0 * depth / frame.camera.fx + 3.0 * frame.depth_std(depth)
    jumps = np.zeros(depth.shape, bool)
    jumps[:, :-1] |= np.abs(np.diff(depth, axis=1)) > reach[:, :-1]
    jumps[:-1] |= np.abs(np.diff(depth, axis=0)) > reach[:-1]
    return jumps


def _pixels_carried(
    frame: Frame, plane: SupportPlane, cut: np.ndarray,
) -> tuple[int, int]:
    """
    Count the pixels of what stands on a plane and touches it, and of what is over it.

    :param cut: (H, W) bool, pixels that are no part of anything that may stand there
    """
    points = measured(frame.points)
    height = plane.height(points)
    least = np.maximum(_LOWEST, _DEVIATIONS * frame.depth_std(measured(frame.depth)))
    is_over = np.zeros(height.shape, bool)
    near = height < _HIGHEST
    is_over[near] = plane.is_over(points[near])
    standing = (is_over & (height > least) & ~cut).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(standing, connectivity=4)
    on_plane = is_over & (np.abs(height) < least) & ~cut
    beside = cv2.dilate(on_plane.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    touching = np.bincount(labels[beside & (height < least + _TOUCHING)], minlength=count)
    at_border = np.bincount(np.concatenate(
        [labels[0], labels[-1], labels[:, 0], labels[:, -1]]), minlength=count)
    carried, above = 0, 0
    for part in range(1, count):
        pixels = int(stats[part, cv2.CC_STAT_AREA])
        if (pixels < _MIN_CARRIED
                or at_border[part] > _MOST_AT_BORDER * 2 * sum(labels.shape)):
            continue
        low, high = np.percentile(points[labels == part], (1, 99), axis=0)
        if np.linalg.norm(high - low) > _LARGEST:
            continue
        if touching[part] >= _MIN_TOUCHING:
            carried += pixels
        elif np.percentile(height[labels == part], 5) < _HIDDEN_FOOT:
            above += pixels
    return carried, above


def surface_normals(
    frame: Frame, step: int | None = None, window: tuple[slice, slice] = np.s_[:, :],
) -> np.ndarray:
    """
    Estimate the surface normal at every pixel, pointing to the camera.

    :param step: pixels to either side over which the slope is taken; None suits whole rooms
    :param window: the part of the frame that is looked at
    :return: (H, W, 3) float32, of the window; NaN where there is no smooth surface
    """
    step = step or _suitable_step(frame)
    depth = measured(frame.depth)[window]
    valid = np.isfinite(depth).astype(np.float32)
    share = cv2.blur(valid, (step, step))
    depth = cv2.blur(np.nan_to_num(depth), (step, step)) / np.maximum(share, 1e-3)
    depth[(valid == 0) | (share < 0.99)] = np.nan
    # One plane an axis: a cross product along a last axis of three is slow.
    points = cv2.split(frame.camera.rays[window] * depth[..., None])
    inner = slice(step, -step)
    right = [axis[inner, 2 * step:] - axis[inner, :-2 * step] for axis in points]
    down = [axis[2 * step:, inner] - axis[:-2 * step, inner] for axis in points]
    normal = [down[one] * right[other] - down[other] * right[one]
              for one, other in ((1, 2), (2, 0), (0, 1))]
    length = np.sqrt(sum(axis ** 2 for axis in normal))
    reach = 8 * 2 * step * depth[inner, inner] / frame.camera.fx
    is_smooth = (np.abs(right[2]) < reach) & (np.abs(down[2]) < reach)
    scale = np.where(is_smooth, 1.0 / np.maximum(length, 1e-12), np.float32(np.nan))
    normals = np.full((*depth.shape, 3), np.nan, np.float32)
    normals[inner, inner] = cv2.merge([axis * scale for axis in normal])
    return normals


def _suitable_step(frame: Frame) -> int:
    """
    Return over how many pixels to either side slopes are taken.

    Depths are means over a square of such a side, so noise tilts a normal by about
    0.7 std / (step^2 pitch): that shall be 8 degrees at the median depth, or less.
    """
    least = max(2, frame.shape[1] // 130)
    if not frame.has_depth:
        return least
    distance = np.maximum(0.1, np.nanmedian(measured(frame.depth)))
    pitch = distance / frame.camera.fx
    return max(least, round(float(np.sqrt(5.0 * frame.depth_std(distance) / pitch))))


def _planes(frame: Frame, normals: np.ndarray) -> list[tuple[SupportPlane, np.ndarray]]:
    """Return planes with the (H, W) pixels that lie on them."""
    known = np.isfinite(normals[..., 0])
    points, free = measured(frame.points), known.copy()
    tolerance = 3.0 * frame.depth_std(measured(frame.depth))
    rng = np.random.default_rng(0)
    planes = []
    for _ in range(_MAX_PLANES):
        pixels = np.flatnonzero(free)
        if len(pixels) < _MIN_SHARE * known.sum():
            break
        pixels = rng.choice(pixels, min(_SAMPLES, len(pixels)), replace=False)
        fit = _ransac(points.reshape(-1, 3)[pixels], normals.reshape(-1, 3)[pixels],
                      tolerance.ravel()[pixels], rng)
        if fit is None:
            break
        normal, offset = fit
        free &= ~(np.abs(SupportPlane(normal, offset).height(points)) < 1.5 * tolerance)
        plane, seen = _refined(frame, normals, normal, offset, tolerance)
        if plane is not None and seen.sum() > _MIN_SHARE * known.sum():
            planes.append((plane, seen))
    return planes


def _ransac(
    points: np.ndarray, normals: np.ndarray, tolerance: np.ndarray, rng: np.random.Generator,
) -> tuple[np.ndarray, float] | None:
    """Return normal and offset of the plane with the most inliers, normal to the camera."""
    picks = rng.choice(len(points), min(_HYPOTHESES, len(points)), replace=False)
    some = rng.choice(len(points), min(1500, len(points)), replace=False)
    candidates = normals[picks]
    offsets = -(candidates * points[picks]).sum(axis=1)
    distances = np.abs(points[some] @ candidates.T + offsets)
    aligned = np.abs(normals[some] @ candidates.T) > _ALIGNED
    votes = (aligned & (distances < 2.0 * tolerance[some, None])).sum(axis=0)
    best = int(np.argmax(votes))
    normal, offset = candidates[best], offsets[best]
    for width in (3.0, 2.0, 1.0, 1.0):
        inliers = np.abs(SupportPlane(normal, offset).height(points)) < width * tolerance
        if inliers.sum() < 50:
            return None
        normal, offset = _least_squares(points[inliers], tolerance[inliers])
    return normal, offset


def _least_squares(points: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, float]:
    weights = 1.0 / deviation.astype(float) ** 2
    center = weights @ points / weights.sum()
    away = points - center
    normal = np.linalg.eigh((away.T * weights) @ away)[1][:, 0]
    if normal @ center > 0:
        normal = -normal
    return normal, float(-normal @ center)


def _refined(
    frame: Frame, normals: np.ndarray, normal: np.ndarray, offset: float, tolerance: np.ndarray,
) -> tuple[SupportPlane | None, np.ndarray]:
    """Fit all pixels of the plane's largest connected part, and outline it."""
    points = measured(frame.points)
    for _ in range(3):
        height = SupportPlane(normal, offset).height(points)
        on_plane = ((np.abs(height) < tolerance)
                    & (np.abs(normals @ normal.astype(normals.dtype)) > _ALIGNED))
        on_plane = _main_part(on_plane, (height > tolerance) & (height < 0.3))
        if on_plane.sum() < 50:
            return None, on_plane
        normal, offset = _least_squares(points[on_plane], tolerance[on_plane])
    return _outlined(SupportPlane(normal, offset), points[on_plane]), on_plane


def _outlined(plane: SupportPlane, points: np.ndarray) -> SupportPlane:
    """Return a plane with the outline of points on it, (N, 3) metres."""
    plan = np.column_stack([points @ axis for axis in plane.axes().astype(np.float32)])
    corners = points[cv2.convexHull(plan, returnPoints=False)[:, 0]].astype(float)
    return replace(plane, hull=corners - plane.height(corners)[:, None] * plane.normal)


def _at_full_resolution(frame: Frame, coarse: _Candidate) -> SupportPlane:
    """Fit a plane of the coarse picture to the readings where it was seen, and outline it."""
    points, tolerance = _readings(frame, coarse)
    plane = _fitted(coarse.plane, points, tolerance)
    return _outlined(plane, points[np.abs(plane.height(points)) < tolerance])


def _fitted_again(frame: Frame, held: _Candidate) -> SupportPlane:
    """Fit a plane to the readings of another frame; its outline stays."""
    plane, hull = _fitted(held.plane, *_readings(frame, held)), measured(held.plane.hull)
    return replace(plane, hull=hull - plane.height(hull)[:, None] * plane.normal)


def _readings(frame: Frame, coarse: _Candidate) -> tuple[np.ndarray, np.ndarray]:
    """Return the points where a plane was seen, (N, 3) metres, and how far off they may be."""
    seen = cv2.dilate(coarse.seen.astype(np.uint8), np.ones((3, 3), np.uint8))
    around = cv2.resize(seen, frame.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    tolerance = 3.0 * frame.depth_std(measured(frame.depth)[around])
    return measured(frame.points)[around], tolerance


def _fitted(plane: SupportPlane, points: np.ndarray, tolerance: np.ndarray) -> SupportPlane:
    """Fit a plane to so many as `_FITTED` of the points that are near it."""
    some = np.s_[::len(points) // _FITTED + 1]
    points, tolerance = points[some], tolerance[some]
    for _ in range(2):
        on_plane = np.abs(plane.height(points)) < tolerance
        plane = SupportPlane(*_least_squares(points[on_plane], tolerance[on_plane]))
    return plane


def _main_part(on_plane: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Keep the largest part of a plane, with the parts that objects on it cut off."""
    kernel = np.ones((5, 5), np.uint8)
    opened = cv2.morphologyEx(on_plane.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    gap = max(3, on_plane.shape[1] // 24)
    shadow = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))
    objects = cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    _, parts = cv2.connectedComponents(np.bitwise_or(cv2.dilate(opened, shadow), objects))
    parts[opened == 0] = 0
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == np.argmax(sizes) if sizes.any() else np.zeros_like(on_plane)
