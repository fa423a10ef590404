# SPDX-License-Identifier: Apache-2.0
"""
Detection with all there is: a network looks at the picture, `tabletop` at the depth image.

The network is that of `detr` when its checkpoint was chosen or is on this machine, else `coco`,
which comes with the package; nothing is waited for.

`tabletop` finds whatever stands on the support, with exact masks but without names; the network
has names, and finds what stands nowhere or has no depth. What both see becomes one object, what
one of them sees is kept:

- A cluster and a box that cover each other are one object, one to one.
- A box that several clusters fill, which touch each other and fill it better together, joins them:
  the armchair that came out in parts.
- A box that has hardly any readings, and no outline by colour, is an object as a whole: what
  clusters lie in it are glints of its glass.
- A box whose readings belong to objects that are known already, or to the support itself, adds
  nothing. Any other is an object, and clusters that touch it in its box are parts of it.

So a poor box may misname a cluster or join parts, but removes nothing that is read.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from img2scene_ros.depth import measured
from img2scene_ros.detection import Detector
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import box_iou
from img2scene_ros.detection import mask_iou
from img2scene_ros.detection.coco import CocoDetector
from img2scene_ros.detection.coco import CocoOptions
from img2scene_ros.detection.coco import coco_folder
from img2scene_ros.detection.detr import BUNDLED
from img2scene_ros.detection.detr import DetrDetector
from img2scene_ros.detection.detr import DetrOptions
from img2scene_ros.detection.detr import require_detr_packages
from img2scene_ros.detection.held import Held
from img2scene_ros.detection.masks import held_mask
from img2scene_ros.detection.masks import keep_masks
from img2scene_ros.detection.scaled import enlarged
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.detection.scaled import reduced_detection
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.hub import cached_checkpoint
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import depth_coverage

_LOGGER = logging.getLogger(__name__)
# IoU from which a cluster and a box are the same object, and from which clusters fill a box; the
# least where they do not, while they are at least this share of the readings there.
_SAME = 0.5
_FULL = 0.8
_LEAST = 0.3
_MOST = 0.7
# A part that is joined lies in the box by this share and makes it fit by so much better. It is no
# further from another part than this share of the box's diagonal, or above or below it.
_INSIDE = 0.8
_GAIN = 0.02
_REACH = 0.05
# Parts above one another have their middles this near, as a share of the larger one's diagonal.
_OFF_CENTER = 0.25
# The support is a box where less than this share is something unknown that stands on it.
_UNKNOWN = 0.2
_READ = 0.5  # share of a box from which on clusters in it are no glints of something unread
_RIM = 0.05  # metres to both sides of the support's outline that walls take
_ROWS = 120  # of the picture, about, that tell shares of it
_POINTS = 2000  # of a cluster, about, that tell whether another is near
# A box adds an object when at least this share of its readings belongs to no other.
_NEW = 0.5
_LEAST_RENDERED = 0.55  # score of the network of rendered scenes; blank pictures get up to 0.51
_USUAL = DetrOptions().checkpoint  # the one that nobody has chosen


@dataclass(frozen=True)
class AutoOptions(Options):
    """How often `auto` asks its network; its parts have options of their own."""

    network_every: int = option(
        10, 'While the picture stays the same, the network looks at one of so many frames only; '
        'the depth image is looked at in every one', low=1, high=1000)


class AutoDetector:
    """
    Merges what `tabletop` and a network find; works with one of them where the other cannot.

    - parts: the detectors that run, by name
    - status: which network it is, and why it is not the chosen one

    :raises InputError: the chosen checkpoint is damaged, or no detector
    :raises OptionError: a device or a label that is not there
    """

    Options = AutoOptions
    PARTS = ('tabletop', 'coco', 'detr')

    def __init__(
        self, options: AutoOptions = AutoOptions(),
        tabletop: TabletopOptions = TabletopOptions(), coco: CocoOptions = CocoOptions(),
        detr: DetrOptions = DetrOptions(),
    ) -> None:
        self.options = options
        self._seen: Held[list[Detection]] | None = None
        self._merged: tuple[tuple[Any, ...], list[Detection]] = (), []  # of what, and what
        self._detr = detr
        network, self.status = _network(coco, detr)
        self.parts: dict[str, Detector] = {'tabletop': TabletopDetector(tabletop), **network}
        if 'detr' not in network and detr.checkpoint != _USUAL or not network:
            _LOGGER.warning("the detector 'auto' takes %s", self.status)

    def detect(self, frame: Frame) -> list[Detection]:
        """
        Find the objects in a frame, with masks wherever depth or the network shows them.

        :raises InputError: the frame has no depth and there is no network
        """
        network = self.parts.get('detr', self.parts.get('coco'))
        if network is None and not frame.has_depth:
            raise InputError("without a depth image the detector 'auto' needs a network, but has "
                             f'{self.status}')
        small, step = reduced(frame)
        named = self._named(network, frame, small) if network else []
        if not frame.has_depth:
            return named
        clusters = self.parts['tabletop'].detect(small)
        seen = clusters, named, frame.shape  # the very ones, while both hold
        if seen != self._merged[0]:
            found = merged(clusters, named, small)
            self._merged = seen, enlarged(found, small, frame, step)
        return list(self._merged[1])

    def _named(self, network: Detector, frame: Frame, reduced_frame: Frame) -> list[Detection]:
        """Ask the network, unless it saw this picture lately; in pixels of the reduced frame."""
        seen = self._seen
        if seen is None or not seen.holds(reduced_frame, self.options.network_every):
            named = network.detect(frame)
            if not named and not frame.has_depth and self._of_rendered_scenes:
                named = self._of_rendered_scenes.detect(frame)
            if reduced_frame is not frame:
                named = [reduced_detection(one, frame, reduced_frame) for one in named]
            keep_masks(named, seen.found if seen else ())
            self._seen = seen = Held(reduced_frame, named)
        return seen.found

    @cached_property
    def _of_rendered_scenes(self) -> Detector | None:
        """Return what knows simulators' pictures, in which one of photos finds nothing."""
        if 'coco' not in self.parts:
            return None
        try:
            return DetrDetector(replace(
                self._detr, checkpoint=BUNDLED, labels=(),
                score_threshold=max(_LEAST_RENDERED, self._detr.score_threshold)))
        except MissingDependencyError:
            return None


def _network(coco: CocoOptions, detr: DetrOptions) -> tuple[dict[str, Detector], str]:
    """Return the network that finds names by its name, where there is one; and which and why."""
    reason = _why_not(detr)
    if not reason:
        try:
            return {'detr': DetrDetector(detr)}, f"the checkpoint '{detr.checkpoint}'"
        except MissingDependencyError as error:
            reason = str(error)
    try:
        return {'coco': CocoDetector(coco)}, f"the bundled network 'coco', because {reason}"
    except MissingDependencyError as error:
        return {}, f'depth alone, which gives no names, because {error}'


def _why_not(detr: DetrOptions) -> str:
    """Return why `detr` is not even tried; '' when its checkpoint was chosen or is here."""
    try:
        require_detr_packages()
        if detr.checkpoint != _USUAL or cached_checkpoint(detr.checkpoint, detr.revision):
            return ''
        return (f"the stronger checkpoint '{detr.checkpoint}' is not on this machine "
                f'(`hf download {detr.checkpoint}` brings it)')
    except MissingDependencyError as error:
        return str(error)


def expected(
    coco: CocoOptions = CocoOptions(), detr: DetrOptions = DetrOptions(),
) -> tuple[str, str]:
    """
    Tell what `auto` would run on, without loading it and without the network.

    :return: what, and why it is not the strongest or chosen one ('' when it is)
    """
    reason = _why_not(detr)
    if not reason:
        if detr.checkpoint == BUNDLED or cached_checkpoint(detr.checkpoint, detr.revision):
            return f"tabletop and detr '{detr.checkpoint}'", ''
        reason = f"the checkpoint '{detr.checkpoint}' has to be downloaded first"
    try:
        coco_folder(coco)
    except MissingDependencyError as error:
        return 'tabletop alone', str(error)
    return 'tabletop and coco', reason


def merged(
    clusters: Sequence[Detection], named: Sequence[Detection], frame: Frame,
) -> list[Detection]:
    """
    Merge two views of one scene.

    The masks of what both see are the clusters': they are cut out by depth, so that no reading of
    the background gets into an object, which a model's mask cannot promise at its edges. The score
    is that of the surer of both.

    :param clusters: of `tabletop`, with masks
    :param named: of a detector of pictures, best first, with or without masks
    :param frame: with depth
    """
    groups = _groups(clusters, named, frame)
    grouped = {index for members in groups.values() for index in members}
    found = [_joined([clusters[index] for index in members], named[number])
             for number, members in groups.items()]
    free = [one for index, one in enumerate(clusters) if index not in grouped]
    taken = _union(clusters, frame)
    for number, one in enumerate(named):
        added = None if number in groups else _addition(one, taken, free, frame)
        if added is not None:
            found.append(added)
            if added.mask is not None:
                taken |= added.mask
                free = [part for part in free if (_pixels(part) & ~added.mask).any()]
            elif (depth_coverage(frame, added) or 0.0) < _READ:
                free = [part for part in free if _share_inside(_pixels(part), added) < _INSIDE]
    return found + free


def _groups(
    clusters: Sequence[Detection], named: Sequence[Detection], frame: Frame,
) -> dict[int, list[int]]:
    """Return the clusters that each named detection consists of, by the detection's number."""
    if not clusters or not named:
        return {}
    overlaps = np.array([[_overlap([cluster], one) for one in named] for cluster in clusters])
    # Squared, one good match is worth more than two poor ones.
    pairs = zip(*linear_sum_assignment(-overlaps ** 2))
    groups = {number: [index] for index, number in pairs if overlaps[index, number] >= _SAME}
    known = _union(clusters, frame)
    free = set(range(len(clusters))) - {members[0] for members in groups.values()}
    for number, one in enumerate(named):
        members = groups.get(number, [])
        if not members and _is_support(one, known, frame):
            continue
        inside = {index for index in free
                  if _share_inside(_pixels(clusters[index]), one) >= _INSIDE}
        grown = _grown(members, inside, one, clusters, frame)
        others = [cluster for index, cluster in enumerate(clusters)
                  if index not in inside and index not in members]
        if len(grown) > len(members) and _are_all_of(
                one, [clusters[index] for index in grown], others, frame):
            groups[number] = grown
            free -= set(grown)
    return groups


def _grown(
    members: list[int], inside: set[int], one: Detection, clusters: Sequence[Detection],
    frame: Frame,
) -> list[int]:
    """Add clusters that belong to the members, as long as they fill the detection better."""
    members, left = list(members), set(inside)
    while True:
        overlap = _overlap([clusters[index] for index in members], one) if members else 0.0
        gains = {index: _overlap([clusters[i] for i in (*members, index)], one) - overlap
                 for index in left}
        best = next((
            index for index in sorted(left, key=gains.__getitem__, reverse=True)
            if gains[index] >= _GAIN and (not members or any(
                _touch(_pixels(clusters[index]), _pixels(clusters[member]), one, frame)
                or _are_concentric([clusters[index], clusters[member]], frame)
                for member in members))), None)
        if best is None:
            return members
        members.append(best)
        left.remove(best)


def _are_all_of(
    one: Detection, parts: Sequence[Detection], others: Sequence[Detection], frame: Frame,
) -> bool:
    """
    Tell whether some clusters are the whole of what a detection shows.

    Either they fill it. Or, where parts have no readings (the stem of a glass), they are above one
    another and most of what the depth image shows there, but for other objects.
    """
    overlap = _overlap(parts, one)
    if overlap >= _FULL:
        return True
    if overlap < _LEAST or not _are_concentric(parts, frame):
        return False
    mask = _mask(one, frame)
    if mask is None:
        return False
    for other in others:
        mask = mask & ~_pixels(other)
    shown = np.any([_pixels(part) for part in parts], axis=0) & mask
    return np.count_nonzero(shown) > _MOST * np.count_nonzero(mask)


def _are_concentric(parts: Sequence[Detection], frame: Frame) -> bool:
    """Tell whether parts have about the same middle, seen from above."""
    if frame.support is None:  # nor is it known where above is
        return False
    plans = [frame.readings(_pixels(part), _POINTS) @ frame.support.axes.T for part in parts]
    low, high = (np.array([end(plan, axis=0) for plan in plans]) for end in (np.min, np.max))
    away = np.linalg.norm(np.ptp((low + high) / 2.0, axis=0))
    return bool(away < _OFF_CENTER * np.linalg.norm(high - low, axis=1).max())


def _overlap(members: Sequence[Detection], one: Detection) -> float:
    """Return the IoU of some clusters with a detection: of masks if it has one, else of boxes."""
    if one.mask is not None:
        mask = np.any([_pixels(member) for member in members], axis=0)
        return mask_iou(mask, one.mask)
    boxes = np.array([member.bbox for member in members])
    box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    return float(box_iou(box[None], one.bbox[None])[0, 0])


def _pixels(cluster: Detection) -> np.ndarray:
    """Return the mask of a cluster, which `tabletop` gives to all."""
    assert cluster.mask is not None
    return cluster.mask


def _share_inside(mask: np.ndarray, one: Detection) -> float:
    return np.count_nonzero(mask & one.region(mask.shape)) / np.count_nonzero(mask)


def _mask(one: Detection, frame: Frame) -> np.ndarray | None:
    """Return the detection's mask, without one what depth or colour shows in its box."""
    return held_mask(frame, one) if one.mask is None else one.mask


def _touch(part: np.ndarray, other: np.ndarray, one: Detection, frame: Frame) -> bool:
    """Tell whether two masks are near each other in space, as far as the box's size goes."""
    first, second = (frame.readings(mask, _POINTS) for mask in (part, other))
    if not len(first) or not len(second):
        return False
    diagonal = np.linalg.norm(one.bbox[2:] - one.bbox[:2]) / frame.camera.fx
    reach = float(_REACH * diagonal * np.median(first[:, 2]))
    distance = cKDTree(first).query(second, distance_upper_bound=reach)[0].min()
    return bool(distance < reach)


def _union(clusters: Sequence[Detection], frame: Frame) -> np.ndarray:
    """Return the pixels of some clusters or none, (H, W) bool."""
    return np.any([np.zeros(frame.shape, bool), *(_pixels(one) for one in clusters)], axis=0)


def _joined(members: Sequence[Detection], one: Detection) -> Detection:
    mask = np.any([_pixels(member) for member in members], axis=0)
    score = max(one.score, *(member.score for member in members))
    names = one.hypotheses or ((one.label, one.score),)  # that there is something is no name
    return Detection(one.label, score, bbox_of(mask), mask, names)


def _addition(
    one: Detection, taken: np.ndarray, free: Sequence[Detection], frame: Frame,
) -> Detection | None:
    """
    Return what a detection adds to the objects; None if nothing.

    Clusters in it that touch what is new, and are smaller, are parts of it: the legs of a desk
    whose top is too large for `tabletop`.

    :param taken: (H, W) bool, pixels of known objects and of all clusters
    :param free: clusters without a name
    """
    if _is_support(one, taken, frame):
        return None
    mask = _mask(one, frame)
    covered = one.region(frame.shape) if mask is None else mask
    new = covered & ~taken
    if mask is not None:
        inside = replace(one, mask=mask)
        parts = [part for part in free if _share_inside(_pixels(part), inside) >= _INSIDE
                 and np.count_nonzero(_pixels(part)) < np.count_nonzero(new)
                 and _touch(_pixels(part), new, one, frame)]
        new = new | _union(parts, frame)
    if np.count_nonzero(new) < _NEW * np.count_nonzero(covered):
        return None
    return one if mask is None else replace(one, mask=new)


def _is_support(one: Detection, taken: np.ndarray, frame: Frame) -> bool:
    """
    Tell whether a detection is the support itself: a table, a tote and its walls.

    It shows most of the support, and of what else it shows most is known or stands along the
    support's rim: a desk on the floor is not the floor, nor is a couch behind a table the table.

    :param taken: (H, W) bool, pixels of known objects
    """
    if frame.support is None:
        return False
    part = np.s_[::max(1, frame.shape[0] // _ROWS), ::max(1, frame.shape[0] // _ROWS)]
    points, depth = measured(frame.points)[part], measured(frame.depth)[part]
    known = one.region(frame.shape)[part] & np.isfinite(depth)
    height, reach = frame.support.height(points), 3.0 * frame.depth_std(depth)
    on_plane = (np.abs(height) <= reach) & frame.support.is_over(points, _RIM)
    if np.count_nonzero(on_plane & known) <= 0.5 * np.count_nonzero(on_plane):
        return False
    new = points[known & (height > reach) & ~taken[part]]
    is_rim = frame.support.is_over(new, _RIM) & ~frame.support.is_over(new, -_RIM)
    return bool(np.count_nonzero(~is_rim) < max(
        np.count_nonzero(is_rim), _UNKNOWN * np.count_nonzero(known)))


BACKEND = AutoDetector
