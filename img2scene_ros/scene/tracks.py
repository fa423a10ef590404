# SPDX-License-Identifier: Apache-2.0
"""Objects over time: which sighting is which object, and which object needs a (better) mesh."""

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from itertools import count

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from img2scene_ros.localization.extents import is_cut
from img2scene_ros.scene.names import NameEvidence
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Placement
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

# A sighting is another object when its mean colour differs by more than this (CIELAB).
_MAX_COLOR_CHANGE = 25.0
# ... or its size along an axis by more than this factor, or its place by more than this share
# of its diagonal.
_MAX_GROWTH = 1.6
_MAX_STEP = 0.35
_MAX_LOST = 100
_WITHOUT_READING = 0.1  # what a pixel without a reading is worth beside one that has one
_NO_MATCH = 1e6
_ROTATION_STD = 0.1  # radians


@dataclass(eq=False)
class Track:
    """One object and all that is known of it; its pose is in the optical frame."""

    id: int
    detection: Detection
    placement: Placement
    color: np.ndarray
    position: np.ndarray
    proxy: ObjectModel
    sightings: int = 1
    missed: int = 0
    is_lost: bool = False
    model: ObjectModel | None = None
    modelled_at: np.ndarray | None = None
    modelled_quality: float = 0.0
    best: Sighting | None = None
    best_quality: float = 0.0
    is_in_work: bool = False
    note: str = ''
    names: NameEvidence = field(default_factory=NameEvidence)

    @property
    def shown_position(self) -> np.ndarray:
        """Return where the mesh is now: it moves along with the object's placement."""
        if self.model is None:
            return self.position
        return self.model.position + self.position - self.modelled_at


class Tracker:
    """
    Keeps the objects of a scene seen by a camera that rests.

    :param forget_after: frames after which an object that is not seen is no longer shown;
        one whose place is seen to be empty goes at once
    :param better_view: an object is rebuilt when it is seen this many times better
    """

    def __init__(self, forget_after: int = 10, better_view: float = 1.5) -> None:
        self.forget_after = forget_after
        self.better_view = better_view
        self._tracks: list[Track] = []
        self._ids = count(1)
        self._support: SupportPlane | None = None

    def update(
        self, frame: Frame, support: SupportPlane | None, sightings: list[Sighting],
        proxies: list[ObjectModel],
    ) -> None:
        """
        Take in all sightings of a frame, with a proxy for each that turns out to be new.

        Lost objects that turn up at their old place get their old id and mesh back. When the
        support shows that the camera was moved, only what is seen now is there for sure, and
        meshes are rebuilt from the new side.
        """
        moved = _is_moved(self._support, support)
        self._support = support
        for known in self._tracks if moved else ():
            known.modelled_quality = 0.0
        colors = [_mean_color(sighting) for sighting in sightings]
        pairs = self._matches(sightings, colors)
        seen = set()
        for index, (sighting, color, proxy) in enumerate(zip(sightings, colors, proxies)):
            track = pairs.get(index)
            if track is None:
                track = Track(next(self._ids), sighting.detection, sighting.placement, color,
                              sighting.placement.position, proxy)
                self._tracks.append(track)
            else:
                _move(track, sighting)
                track.color = 0.8 * track.color + 0.2 * color
            _name(track, sighting)
            self._consider(track, sighting)
            seen.add(track.id)
        for track in self._tracks:
            if track.id not in seen:
                track.missed += 1
                track.is_lost |= (moved or track.missed >= self.forget_after
                                  or _is_gone(track, frame) or _is_replaced(track, sightings))
        lost = [track for track in self._tracks if track.is_lost]
        for track in lost:
            # Whole frames would pile up; the mesh is what a returning object needs.
            track.best = None
            track.detection = replace(track.detection, mask=None)
        for track in lost[:-_MAX_LOST]:
            self._tracks.remove(track)

    def next_jobs(self, count: int) -> list[tuple[int, Sighting]]:
        """
        Return ids and best views of the objects that need a mesh most; mark them as in work.

        :param count: greatest number of jobs
        """
        waiting = [track for track in self._tracks
                   if track.best is not None and not track.is_lost and not track.is_in_work]
        waiting.sort(key=lambda track: (track.model is None, track.best_quality), reverse=True)
        jobs = []
        for track in waiting[:count]:
            track.is_in_work = True
            track.modelled_quality = track.best_quality
            assert track.best is not None  # see above
            jobs.append((track.id, track.best))
            track.best = None
        return jobs

    def finish(
        self, id: int, sighting: Sighting, model: ObjectModel | None, note: str = '',
    ) -> None:
        """Take in the mesh of a job, or the reason why there is none."""
        for track in self._tracks:
            if track.id == id:
                track.is_in_work = False
                track.note = note
                if model is not None:
                    track.model = model
                    track.modelled_at = sighting.placement.position
                    if _rests(track, sighting):
                        # Earlier, worse views no longer count for its place.
                        track.position = sighting.placement.position

    def objects(self) -> tuple[SceneObject, ...]:
        """Return the objects that are there now, by id."""
        return tuple(_scene_object(track) for track in self._tracks if not track.is_lost)

    def clear(self) -> None:
        """Forget all objects; their ids are not used again."""
        self._tracks.clear()

    def _matches(self, sightings: list[Sighting], colors: list[np.ndarray]) -> dict[int, Track]:
        """Assign tracks to sightings so that the sum of their distances is least."""
        if not sightings or not self._tracks:
            return {}
        costs = np.array([[_distance(track, sighting, color) for track in self._tracks]
                          for sighting, color in zip(sightings, colors)])
        rows, columns = linear_sum_assignment(costs)
        return {row: self._tracks[column] for row, column in zip(rows, columns)
                if costs[row, column] < _NO_MATCH}

    def _consider(self, track: Track, sighting: Sighting) -> None:
        """Keep the sighting for the next reconstruction when it is clearly better."""
        quality = _quality(sighting)
        known = max(track.modelled_quality, track.best_quality if track.best else 0.0)
        if quality > self.better_view * known:
            track.best, track.best_quality = sighting, quality


def _is_moved(before: SupportPlane | None, now: SupportPlane | None) -> bool:
    """Tell whether the camera changed its place or tilt over the support by 3 cm or 3 degrees."""
    if before is None or now is None:
        return False
    return (before.normal @ now.normal < np.cos(np.radians(3.0))
            or abs(before.offset - now.offset) > 0.03)


def _distance(track: Track, sighting: Sighting, color: np.ndarray) -> float:
    """Return 0 (the same) to 1, more for lost tracks, `_NO_MATCH` when it cannot be the same."""
    here, there = sighting.placement, track.placement
    reach = _MAX_STEP * np.linalg.norm(here.size) + 3.0 * np.linalg.norm(here.position_std)
    distance = np.linalg.norm(here.position - track.position) / reach
    growth = np.abs(np.log(np.maximum(here.size, 1e-3) / np.maximum(there.size, 1e-3))).max()
    strict = 0.5 if track.is_lost else 1.0
    if (distance > strict or growth > strict * np.log(_MAX_GROWTH)
            or np.linalg.norm(color - track.color) > strict * _MAX_COLOR_CHANGE):
        return _NO_MATCH
    relabelled = sighting.detection.label != track.detection.label
    return float(distance + 0.3 * relabelled + 1.0 * track.is_lost)


def _move(track: Track, sighting: Sighting) -> None:
    """Average the place of an object that rests; follow one that moves."""
    rests = _rests(track, sighting) and not track.is_lost
    track.sightings = min(track.sightings + 1, 10) if rests else 1
    step = sighting.placement.position - track.position
    track.position = track.position + step / track.sightings
    track.detection, track.placement = sighting.detection, sighting.placement
    track.missed, track.is_lost = 0, False


def _name(track: Track, sighting: Sighting) -> None:
    """Give an object the name that fits all its sightings best, so that one does not rename it."""
    track.names.add(sighting)
    track.detection = replace(
        sighting.detection, label=track.names.label, hypotheses=track.names.hypotheses)


def _rests(track: Track, sighting: Sighting) -> bool:
    """Tell whether the sighting is where the track is, as far as places are known."""
    placement = sighting.placement
    step = np.linalg.norm(placement.position - track.position)
    return bool(step < 0.01 + np.linalg.norm(placement.position_std))


def _is_gone(track: Track, frame: Frame) -> bool:
    """Tell whether the depth image looks right through the object's place."""
    if frame.depth is None:
        return False
    model = track.model or track.proxy
    points = model.vertices[::max(1, len(model.vertices) // 200)] @ model.rotation.T
    points = points + track.shown_position
    pixels = np.nan_to_num(frame.camera.project(points), nan=-1.0)
    columns, rows = np.round(pixels).astype(int).T
    inside = (columns >= 0) & (columns < frame.shape[1]) & (rows >= 0) & (rows < frame.shape[0])
    behind = frame.depth[rows[inside], columns[inside]] - points[inside, 2]
    margin = 0.005 + 3.0 * frame.depth_std(points[inside, 2])
    seen_through = (behind > margin)[np.isfinite(behind)]
    return len(seen_through) > 10 and bool(seen_through.mean() > 0.4)


def _is_replaced(track: Track, sightings: list[Sighting]) -> bool:
    """Tell whether another object is where this one was."""
    reach = 0.5 * (track.model or track.proxy).size.min()
    return any(np.linalg.norm(other.placement.position - track.shown_position) < reach
               for other in sightings)


def _quality(sighting: Sighting) -> float:
    """Tell how well an object is seen: its readings, half of them when the border cuts it."""
    frame, detection = sighting.frame, sighting.detection
    if detection.mask is None:
        size = detection.bbox[2:] - detection.bbox[:2]
        seen = float(size[0] * size[1])
    else:
        seen = float(np.count_nonzero(detection.mask))
        if frame.depth is not None:
            unread = np.count_nonzero(detection.mask & np.isnan(frame.depth))
            seen -= (1.0 - _WITHOUT_READING) * unread
    return max(seen, 1.0) * (0.5 if is_cut(sighting) else 1.0)


def _mean_color(sighting: Sighting) -> np.ndarray:
    """Return the object's mean colour, (3,) CIELAB."""
    color, detection = sighting.frame.color, sighting.detection
    xmin, ymin = np.maximum(np.floor(detection.bbox[:2]).astype(int), 0)
    xmax, ymax = np.ceil(detection.bbox[2:]).astype(int)
    patch = color[ymin:ymax, xmin:xmax]
    if detection.mask is not None:
        patch = patch[detection.mask[ymin:ymax, xmin:xmax]]
    mean = patch.reshape(-1, 3).mean(axis=0, dtype=np.float32) / 255.0
    return cv2.cvtColor(mean.reshape(1, 1, 3).astype(np.float32), cv2.COLOR_RGB2LAB).ravel()


def _scene_object(track: Track) -> SceneObject:
    model = track.model or track.proxy
    deviations = np.concatenate([track.placement.position_std, np.full(3, _ROTATION_STD)])
    return SceneObject(
        id=track.id, detection=track.detection, position=track.shown_position,
        rotation=model.rotation, covariance=np.diag(deviations ** 2),
        depth_source=track.placement.depth_source, model=model,
        is_final=track.best is None and not track.is_in_work, note=track.note)
