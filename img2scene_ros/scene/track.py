# SPDX-License-Identifier: Apache-2.0
"""One object and all that is known of it; its pose is in the world."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property

import cv2
import numpy as np

from img2scene_ros.localization.extents import is_cut
from img2scene_ros.scene.evidence import Compared
from img2scene_ros.scene.evidence import expected
from img2scene_ros.scene.evidence import first_compared
from img2scene_ros.scene.evidence import floats
from img2scene_ros.scene.evidence import pixels_of
from img2scene_ros.scene.evidence import seen_points
from img2scene_ros.scene.names import NameEvidence
from img2scene_ros.scene.poses import PoseFilter
from img2scene_ros.scene.registration import Registered
from img2scene_ros.scene.registration import Sought
from img2scene_ros.scene.surface import SAMPLES
from img2scene_ros.scene.surface import sampled
from img2scene_ros.turning import turned_covariance
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Placement
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

_READINGS = 200  # of a sighting that are looked at
_WITHOUT_READING = 0.1  # what a pixel without a reading is worth beside one that has one
_ROTATION_STD = 0.1  # radians, of axes that a box around readings has
_TOUCHING = 0.02  # metres of depth between neighbouring pixels of things that touch
_COVERED = 0.5  # share of what is seen of an object by which another one has taken its place
_BOX_MARGIN = 0.01  # metres, or a tenth, by which its box is widened to hold its readings
# Share of what should be seen of it that something nearer hides, by metres, when it is not whole.
_PART, _NEARER = 0.03, 0.02
# Chi-squared of six degrees of freedom, whose readings are not independent, by which an object
# has moved; for how many frames more it is registered then, and at most after many such frames.
_MOVED, _LIVELY, _LIVELIEST = 40.0, 2, 12
# Metres by which the middle of sightings scatters, before it is known, and frames for which it
# lags behind the turn of a view.
_FIRST_SHIFT, _TURNS = 0.003, 5.0
_ASIDE = 0.15  # of its diagonal by which that middle is off where its mesh cannot be
# Share of the readings that a mesh explains, below which they contradict it, for how many seconds
# until it is stale; share of the newest difference between the middles of mesh and box.
_LEAST_FIT, _STALE, _OFFSET_SHARE = 0.5, 0.3, 0.2
# Readings of a part that the mesh only guesses which are averaged, and by which share of the
# object's radius the guess may be wrong.
_AVERAGED, _GUESSED = 10, 0.5
_WRONG = 0.005  # metres beyond the noise by which readings contradict a mesh
_KEPT_SHARE = 0.8  # of the colour and size so far, beside those of the newest sighting


@dataclass(frozen=True, eq=False)
class Look:
    """
    A sighting in the world.

    - proxy: a box for it
    """

    sighting: Sighting
    proxy: ObjectModel

    @property
    def world(self) -> np.ndarray:
        """Return the world from the optical frame of its frame, (4, 4)."""
        return self.sighting.frame.pose

    @property
    def position(self) -> np.ndarray:
        """Return the middle of the object in the world, (3,) metres."""
        return self.world[:3, :3] @ self.sighting.placement.position + self.world[:3, 3]

    @property
    def error(self) -> np.ndarray:
        """Return the covariance of the place that the sighting tells, (6, 6), world."""
        stds = np.append(self.sighting.placement.position_std, np.full(3, _ROTATION_STD))
        return turned_covariance(np.diag(stds ** 2), self.world[:3, :3])

    @cached_property
    def window(self) -> tuple[slice, slice]:
        """Return the part of the picture that shows it."""
        height, width = self.sighting.frame.shape
        xmin, ymin = np.floor(self.sighting.detection.bbox[:2]).astype(int)
        xmax, ymax = np.ceil(self.sighting.detection.bbox[2:]).astype(int)
        return slice(max(ymin, 0), min(ymax, height)), slice(max(xmin, 0), min(xmax, width))

    @cached_property
    def mask(self) -> np.ndarray:
        """Return its pixels in the window, (h, w) bool; all of them where there is no mask."""
        mask = self.sighting.detection.mask
        if mask is None:
            rows, columns = self.window
            return np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
        return mask[self.window]

    @cached_property
    def depth(self) -> np.ndarray:
        """Return the depth in the window where it is read on the object, else NaN, (h, w)."""
        depth = self.sighting.frame.depth
        if depth is None:
            return np.full(self.mask.shape, np.nan, np.float32)
        return np.where(self.mask, depth[self.window], np.float32(np.nan))

    @cached_property
    def points(self) -> np.ndarray:
        """Return some of its readings in the world, (N, 3) metres; its middle without any."""
        rows, columns = np.nonzero(np.isfinite(self.depth))
        if not len(rows):
            return self.position[None]
        some = np.s_[::len(rows) // _READINGS + 1]
        return self.at(rows[some], columns[some])

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return what is read at pixels of the window, (N, 3) metres, world."""
        rays = self.sighting.frame.camera.rays[self.window][rows, columns]
        points = (rays * self.depth[rows, columns, None]).astype(float)
        return points @ self.world[:3, :3].T + self.world[:3, 3]

    @cached_property
    def color(self) -> np.ndarray:
        """Return its mean colour, (3,) CIELAB."""
        pixels = self.sighting.frame.color[self.window][self.mask]
        mean = pixels.mean(axis=0, dtype=np.float32) / np.float32(255.0)
        return cv2.cvtColor(mean.reshape(1, 1, 3), cv2.COLOR_RGB2LAB).ravel()

    @property
    def quality(self) -> float:
        """Tell how well it is seen: its readings, half of them when the border cuts it."""
        seen = float(np.count_nonzero(self.mask))
        if self.sighting.detection.mask is not None and self.sighting.frame.depth is not None:
            read = np.count_nonzero(np.isfinite(self.depth))
            seen = read + _WITHOUT_READING * (seen - read)
        return max(seen, 1.0) * (0.5 if is_cut(self.sighting) else 1.0)

    def floats(self, support: SupportPlane | None, known: Sequence['Track'] = ()) -> bool:
        """
        Tell whether it is in the air: an arm, a hand, what they hold.

        :param known: objects of which it may show parts: they are not what floats, nor what it
            stands on
        """
        rows, columns = np.nonzero(np.isfinite(self.depth))
        points, own = self.at(rows, columns), self.depth.copy()
        for track in known:
            inside = track.holds(points)
            own[rows[inside], columns[inside]] = np.nan
        if known:  # what is left of their rims is no evidence
            solid = cv2.morphologyEx(
                np.isfinite(own).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
            own[solid == 0] = np.nan
        return floats(self.sighting, own, self.window, support)

    def touches(self, other: 'Look') -> bool:
        """Tell whether readings of both are side by side, in the picture and in depth."""
        frame = self.sighting.frame
        margin = _TOUCHING + 3.0 * float(frame.depth_std(self.sighting.placement.position[2]))
        near = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in self.window)

        def seen(look: 'Look') -> np.ndarray:
            whole = np.full(frame.shape, np.nan, np.float32)
            whole[look.window] = look.depth
            return whole[near]

        one, two = seen(self), seen(other)
        beside = ((one[1:], two[:-1]), (one[:-1], two[1:]),
                  (one[:, 1:], two[:, :-1]), (one[:, :-1], two[:, 1:]))
        return any(bool((np.abs(a - b) < margin).any()) for a, b in beside)


@dataclass(eq=False)
class Track:
    """
    One object.

    - id: 0 while it is tentative
    - state: 'tentative', 'visible', 'hidden', 'out_of_view' or 'lost'
    - is_whole: its latest sighting shows as much of it as others did
    - detection: of its latest sighting, with the name that fits all of them best
    - placement: of its latest sighting; size: (3,) metres, of views of the whole
    - color: (3,) mean, CIELAB
    - motion: the pose of what is shown of it
    - offset: (3,) metres, from there to the middle of its sightings, in its own axes
    - first_seen, seen: seconds, of its sightings; seen_always: in every frame since the first
    - best: the best view that no mesh was made of yet
    - best_pose: (4, 4), where the object was then, in the world of then; work_pose: the same of
      the view that a mesh is made of now, None while none is made
    - score: mean of its sightings
    - bad_since: seconds, since when readings contradict the mesh
    - places: (SAMPLES, 3) metres, where samples of the mesh are by the readings, in its own frame
    - counts: (SAMPLES,) how many readings told so, none where the mesh is still a guess
    - behind: (SAMPLES,) metres by which readings were behind them when it was registered, or NaN
    """

    proxy: ObjectModel
    placement: Placement
    detection: Detection
    color: np.ndarray
    motion: PoseFilter
    first_seen: float
    id: int = 0
    state: str = 'tentative'
    seen_always: bool = True
    is_whole: bool = True
    is_stale: bool = False
    model: ObjectModel | None = None
    best: Sighting | None = None
    best_quality: float = 0.0
    best_pose: np.ndarray = field(default_factory=lambda: np.eye(4))
    modelled_quality: float = 0.0
    work_pose: np.ndarray | None = None
    note: str = ''
    bad_since: float | None = None
    names: NameEvidence = field(default_factory=NameEvidence)
    score: float = 0.0
    seen: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def __post_init__(self) -> None:
        self.size = self.placement.size
        self.surface = sampled(self.proxy)
        self.offset = np.zeros(3)
        self._shift, self._toward = _FIRST_SHIFT, np.zeros(3)
        self._moving, self._is_recalled = 0, False
        self.behind: np.ndarray
        self._forget_readings()

    @classmethod
    def begun(cls, look: Look, now: float) -> 'Track':
        """Return a tentative object that a look shows for the first time."""
        sighting = look.sighting
        track = cls(look.proxy, sighting.placement, sighting.detection, look.color,
                    PoseFilter(look.world @ pose_of(look.proxy), look.error), now)
        track.offset = track._local(look.position)
        track.see(look, now, is_whole=True)
        return track

    @classmethod
    def remembered(cls, item: SceneObject, world: np.ndarray, now: float) -> 'Track':
        """
        Return an object that was seen at another time.

        :param world: (4, 4) world from the optical frame that its pose is in
        """
        placement = Placement(
            item.position, item.rotation, item.model.size.astype(float), item.position_std,
            item.depth_source)
        mean = (item.model.colors.mean(axis=0) / 255.0).astype(np.float32)
        track = cls(
            item.model, placement, item.detection,
            cv2.cvtColor(mean.reshape(1, 1, 3), cv2.COLOR_RGB2LAB).ravel(),
            PoseFilter(world @ item.pose, turned_covariance(item.covariance, world[:3, :3])), now,
            item.id, item.state, score=item.detection.score, names=NameEvidence(
                item.detection.label,
                dict(item.detection.hypotheses) or {item.detection.label: 1.0}))
        if item.model.reconstructor != 'box':  # which is still to be rebuilt
            track.model, track.modelled_quality, track._moving = item.model, np.inf, _LIVELY
            track._is_recalled = True
        track.seen.append(now)
        return track

    @property
    def is_tentative(self) -> bool:
        """Tell whether it may still turn out to be nothing."""
        return self.state == 'tentative'

    @property
    def shown(self) -> ObjectModel:
        """Return its mesh, or the proxy until there is one."""
        return self.model or self.proxy

    @property
    def center(self) -> np.ndarray:
        """Return where the middle of its next sighting is expected, (3,) metres, world."""
        pose = self.motion.pose
        return pose[:3, :3] @ self.offset + pose[:3, 3]

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Tell which points, (N, 3) metres, world, lie in the box around it, (N,) bool."""
        pose, half = self.motion.pose, self.surface.size / 2.0
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        return (np.abs(local) < half + np.maximum(_BOX_MARGIN, 0.1 * half)).all(axis=1)

    def see(self, look: Look, now: float, is_whole: bool) -> None:
        """
        Take in a sighting, but for the pose that it shows.

        :param is_whole: it shows as much of the object as was seen before
        """
        self.placement, self.is_whole = look.sighting.placement, is_whole
        self.names.add(look.sighting)
        self.detection = replace(
            look.sighting.detection, label=self.names.label, hypotheses=self.names.hypotheses)
        if is_whole:
            size = look.sighting.placement.size
            self.size = _KEPT_SHARE * self.size + (1.0 - _KEPT_SHARE) * size
            self.color = _KEPT_SHARE * self.color + (1.0 - _KEPT_SHARE) * look.color
        self.seen.append(now)
        self.score += (look.sighting.detection.score - self.score) / len(self.seen)
        if not self.is_tentative:
            self.state = 'visible'

    def follow(
        self, look: Look, found: Registered | None, seconds: float, is_whole: bool, now: float,
    ) -> None:
        """
        Go where a look shows it: where its mesh fits the readings, else where its box is.

        While they contradict the mesh for long, it is stale and will be rebuilt.

        :param found: where its mesh fits the readings; None without a mesh
        :param seconds: since the frame before
        :param is_whole: it shows as much of the object as was seen before
        """
        if found is not None and np.isfinite(found.residual) and self._fits(found.fit, now) and (
                not is_whole or self._is_near(look, look.world @ found.pose)):
            error = turned_covariance(found.covariance, look.world[:3, :3])
            self.motion.add(look.world @ found.pose, error, seconds)
            self._learn_offset(look)
        elif is_whole:
            pose = self.motion.pose.copy()  # a place tells no turn
            pose[:3, 3] = look.position - pose[:3, :3] @ self.offset
            self.motion.add(pose, look.error, seconds)

    def _is_near(self, look: Look, pose: np.ndarray) -> bool:
        """Tell whether a sighting is about where it should be of the object at a pose, (4, 4)."""
        aside = look.position - pose[:3, :3] @ self.offset - pose[:3, 3]
        return bool(np.linalg.norm(aside) < _ASIDE * np.linalg.norm(self.size))

    def _fits(self, fit: float, now: float) -> bool:
        """Tell whether readings fit the mesh; while they do not for long, it is stale."""
        if fit >= _LEAST_FIT:
            self.bad_since = None
            return True
        self.bad_since = now if self.bad_since is None else self.bad_since
        if now - self.bad_since > _STALE and not self.is_stale:
            self.is_stale = True
            self.modelled_quality, self.best = 0.0, None
        return False

    def recall(self, seen: Compared, index: int, look: Look) -> None:
        """
        Take a remembered object that is seen again for one that rests where it lies on readings.

        :param seen: the samples of its mesh, at an index, where it was
        """
        if not self._is_recalled:
            return
        self._is_recalled = False
        off = np.abs(seen.behind[index][seen.owned[index]])
        off = off[np.isfinite(off)]
        if len(off) and np.mean(off < _WRONG + 3.0 * seen.std[index]) >= _LEAST_FIT:
            self.offset, self._moving = self._local(look.position), 0

    def rests(self, look: Look, is_whole: bool, change: float) -> bool:
        """
        Tell whether nothing shows that it has moved since its mesh was made or registered.

        Neither do readings, nor has the middle of its sightings gone farther than usual, and than
        another view of it explains. What has moved for long may go on unnoticed for some frames.

        :param change: chi-squared of the motion that readings show; NaN where they show too little
        """
        shift = float(np.linalg.norm(look.position - self.center))
        usual, self._shift = self._shift, 0.8 * self._shift + 0.2 * min(shift, 2 * self._shift)
        toward, before = look.world[:3, 3] - self.center, self._toward
        self._toward = toward / np.linalg.norm(toward)
        turn = float(np.linalg.norm(self._toward - before)) if before.any() else 0.0
        if change >= _MOVED or is_whole and (
                shift > 3.0 * usual + _TURNS * turn * self.surface.radius):
            self._moving = min(self._moving + _LIVELY, _LIVELIEST)
            return False
        self._moving -= 1
        if is_whole and self._moving >= 0:
            return False
        self._moving = 0
        self.motion.rest()
        if is_whole:
            self._learn_offset(look)
        return True

    def _learn_offset(self, look: Look) -> None:
        self.offset += _OFFSET_SHARE * (self._local(look.position) - self.offset)

    @property
    def is_shaped(self) -> bool:
        """Tell whether it has a mesh that readings can fit: a box around it is not its shape."""
        return self.model is not None and self.model.reconstructor != 'box'

    def sought(self, look: Look, seconds: float) -> Sought:
        """Return where its mesh is to be looked for."""
        start = self.motion.pose.copy()
        start[:3, 3] += self.motion.predicted(seconds)
        return Sought(self.surface, np.linalg.inv(look.world) @ start, look.window, look.mask,
                      self.places, self.counts > 0)

    def learn(self, seen: Compared, index: int, now: float, is_base: bool = False) -> None:
        """
        Remember what readings show of its surface, also where its mesh is but a guess.

        :param seen: the samples of its mesh, at an index, where it is now
        :param is_base: its mesh was registered to the readings; else they are remembered where
            there were none then
        """
        pose, points, behind = seen.poses[index], seen.points[index], seen.behind[index]
        if not is_base:  # else the registration tells
            off = np.abs(behind + (self.places - self.surface.points) @ pose[2, :3])
            off = off[np.isfinite(off)]
            is_near = off < _WRONG + 3.0 * seen.std[index]
            self._fits(float(is_near.mean()) if len(off) else 1.0, now)
        elif self.bad_since is not None:
            return
        self.behind = np.where(np.isnan(self.behind) | is_base, behind, self.behind)
        new = np.flatnonzero(seen.owned[index] & (self.counts < _AVERAGED) & (
            np.abs(behind) < _GUESSED * self.surface.radius))
        self.counts[new] += 1
        away = behind[new] / self.counts[new]
        self.places[new] += (points[new] * (away / points[new, 2])[:, None]) @ pose[:3, :3]
        self.behind[new] -= away

    def _forget_readings(self) -> None:
        """Take the mesh for what it is."""
        self.places, self.counts = self.surface.points.copy(), np.full(SAMPLES, _AVERAGED)
        self.behind, self._moving = np.full(SAMPLES, np.nan), 0

    def consider(self, look: Look, better_view: float) -> None:
        """Keep its latest look for the next reconstruction when it is clearly better."""
        quality = look.quality
        known = max(self.modelled_quality, self.best_quality if self.best else 0.0)
        if quality > better_view * known:
            self.best, self.best_quality = look.sighting, quality
            self.best_pose = self.motion.pose

    def take_over(self, before: 'Track', is_at_its_place: bool) -> None:
        """
        Go on as an object that was lost and has come back.

        :param is_at_its_place: where it was before; else nothing tells how it is turned now
        """
        self.id, self.names = before.id, before.names
        if is_at_its_place and before.model is not None:
            center, self.model, self.surface = self.center, before.model, before.surface
            self.places, self.counts, self._moving = before.places, before.counts, _LIVELY
            self.motion, self.offset = before.motion, before.offset
            self.modelled_quality = before.modelled_quality
            pose = self.motion.pose.copy()
            pose[:3, 3] += center - self.center
            self.motion.restart(pose)

    def is_hidden_in(self, look: Look) -> bool:
        """Tell whether something nearer hides a part of it."""
        seen = expected(self.surface, np.linalg.inv(look.world) @ self.motion.pose,
                        look.sighting.frame, _NEARER)
        return bool(seen.nearer.mean() > _PART)

    def is_covered(
        self, frame: Frame, camera_from_world: np.ndarray, others: Sequence[Look],
    ) -> bool:
        """Tell whether most of what should be seen of it now belongs to another object."""
        rows, columns = self._pixels(frame, camera_from_world)
        masks = [look.sighting.detection.mask for look in others]
        return any(mask is not None and len(rows) > 0
                   and mask[rows, columns].mean() > _COVERED for mask in masks)

    def wear(self, model: ObjectModel, pose: np.ndarray, sighting: Sighting) -> None:
        """
        Take in a mesh of a view; the object, or the world, may have moved since.

        :param pose: (4, 4), where the object was then
        """
        center, frame = self.center, sighting.frame
        since = self.motion.pose @ np.linalg.inv(pose)
        self.model, self.surface = model, sampled(model)
        self.motion.restart(since @ frame.pose @ pose_of(model))
        self.offset = self._local(center)
        self.is_stale, self.bad_since = False, None
        self._forget_readings()
        if frame.depth is not None:
            self.behind, is_shown = first_compared(self.surface, pose_of(model), frame)
            self.counts[~is_shown] = 0  # such as those of its far side

    def move(self, new_from_old: np.ndarray) -> None:
        """Go on in another world."""
        turn = new_from_old[:3, :3]
        self.motion.restart(new_from_old @ self.motion.pose)
        self.motion.velocity = turn @ self.motion.velocity
        self.motion.error = turned_covariance(self.motion.error, turn)

    def unseen(self, frame: Frame, camera_from_world: np.ndarray) -> Detection:
        """Return the detection of an object that was not detected: a box where it should be."""
        rows, columns = self._pixels(frame, camera_from_world)
        bbox = np.zeros(4) if not len(rows) else np.array(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
        return replace(self.detection, bbox=bbox, mask=None)

    def _pixels(
        self, frame: Frame, camera_from_world: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns where points on it should be seen."""
        points, faces = seen_points(self.surface, camera_from_world @ self.motion.pose)
        return pixels_of(points[faces], frame)[1:]

    def scene_object(self, world: np.ndarray, now: float) -> SceneObject:
        """
        Return what is shown of it.

        :param world: (4, 4) world from the optical frame
        """
        pose = np.linalg.inv(world) @ self.motion.pose
        covariance = self.motion.covariance(now - self.seen[-1])
        return SceneObject(
            id=self.id, detection=self.detection, position=pose[:3, 3], rotation=pose[:3, :3],
            covariance=turned_covariance(covariance, world[:3, :3].T),
            depth_source=self.placement.depth_source, model=self.shown,
            is_final=self.best is None and self.work_pose is None, note=self.note,
            state=self.state, is_stale=self.is_stale)

    def _local(self, point: np.ndarray) -> np.ndarray:
        pose = self.motion.pose
        return pose[:3, :3].T @ (point - pose[:3, 3])


def pose_of(model: ObjectModel) -> np.ndarray:
    """Return a model's pose in the frame that it was built from, (4, 4)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = model.rotation, model.position
    return pose
