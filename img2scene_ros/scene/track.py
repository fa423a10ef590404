# SPDX-License-Identifier: Apache-2.0
"""One object and all that is known of it; its pose is in the world."""

from collections import deque
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

import cv2
import numpy as np

from img2scene_ros.localization.extents import is_cut
from img2scene_ros.scene.evidence import SAME_SIDE
from img2scene_ros.scene.evidence import SWERVE
from img2scene_ros.scene.evidence import Base
from img2scene_ros.scene.evidence import Seen
from img2scene_ros.scene.evidence import compared
from img2scene_ros.scene.look import Look
from img2scene_ros.scene.names import NameEvidence
from img2scene_ros.scene.poses import PoseFilter
from img2scene_ros.scene.registration import Registered
from img2scene_ros.scene.registration import Sought
from img2scene_ros.scene.surface import SAMPLES
from img2scene_ros.scene.surface import sampled
from img2scene_ros.turning import turned_covariance
from img2scene_ros.types import Detection
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Placement
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Sighting

_BOX_MARGIN = 0.01  # metres, or a tenth, by which its box is widened to hold its readings
# F statistic of what readings show of a motion by which an object has moved, and for how many
# frames more it is registered then.
_MOVED, _LIVELY = 6.0, 1
_STARTS = 0.005  # metres, and radians times levers, by which what rested moves in a frame
# Metres by which the middle of sightings scatters, before it is known, and frames for which it
# lags behind the turn of a view.
_FIRST_SHIFT, _TURNS = 0.003, 5.0
_ASIDE = 0.15  # of its diagonal by which that middle is off where its mesh cannot be
_UNSURE = 0.06  # of its diagonal by which what does not fit may move it
_OFFSET_SHARE = 0.2  # of the newest difference between the middles of mesh and box
# Readings contradict a mesh that lies on less than this share of them, or is seen through where
# they once told it, or leaves more of them outside, or reaches farther into what carries it than
# readings may be off, and this [m].
_LEAST_FIT, _MOST_THROUGH, _MOST_OUTSIDE, _MOST_SUNK = 0.5, 0.15, 0.2, 0.005
# Seconds of that until it is stale, and in which the quality that a new mesh needs halves.
_STALE, _HALVING = 0.3, 1.0
# Readings of a part that the mesh only guesses which are averaged, and by which share of the
# object's radius the guess may be wrong.
_AVERAGED, _GUESSED = 10, 0.5
_FEWEST = 10  # samples that tell anything
_KEPT_SHARE = 0.8  # of the colour and size so far, beside those of the newest sighting


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
    - best: the best view that no mesh was made of yet; best_since: seconds
    - best_pose: (4, 4), where the object was then, in the world of then; work_pose: the same of
      the view that a mesh is made of now, None while none is made
    - score: mean of its sightings
    - bad_since: seconds, since when readings contradict the mesh
    - places: (SAMPLES, 3) metres, where samples of the mesh are by the readings, in its own frame
    - counts: (SAMPLES,) how many readings told so, none where the mesh is still a guess
    - base: how readings lie on these since it was registered
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
    best_since: float = 0.0
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
        self._has_moved = self._is_gone = False  # as readings tell; nothing lies where it was
        self.base: Base
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

    def needs_mesh(self, now: float, settles: float) -> bool:
        """
        Tell whether a mesh is to be made of its best view.

        One that has a mesh waits for so many seconds whether the view gets better still.
        """
        return self.best is not None and self.work_pose is None and (
            self.model is None or self.is_stale or now - self.best_since >= settles)

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

    def expected(self, seconds: float) -> np.ndarray:
        """Return where that is so many seconds after it was seen, (3,) metres, world."""
        pose = self.motion.predicted(seconds)
        return pose[:3, :3] @ self.offset + pose[:3, 3]

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Tell which points, (N, 3) metres, world, lie in the box around it, (N,) bool."""
        turn, half = self.motion.pose[:3, :3], self.surface.size / 2.0
        most, origin = half + np.maximum(_BOX_MARGIN, 0.1 * half), self.motion.pose[:3, 3] @ turn
        # What is before or behind it is most of a large thing, and told by one axis.
        inside: np.ndarray = np.abs(points @ turn[:, 0] - origin[0]) < most[0]
        near = np.flatnonzero(inside)
        inside[near] = (np.abs(points[near] @ turn[:, 1:] - origin[1:]) < most[1:]).all(axis=1)
        return inside

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
            kept = 0.0 if self.is_stale else _KEPT_SHARE
            self.size = kept * self.size + (1.0 - kept) * look.sighting.placement.size
            self.color = kept * self.color + (1.0 - kept) * look.color
        self.seen.append(now)
        self.score += (look.sighting.detection.score - self.score) / len(self.seen)
        if not self.is_tentative:
            self.state = 'visible'

    def follow(
        self, look: Look, found: Registered | None, seconds: float, is_whole: bool,
    ) -> None:
        """
        Go where a look shows it: where its mesh fits the readings, else where its box is.

        :param found: where its mesh fits the readings; None without a mesh
        :param seconds: since the frame before
        :param is_whole: it shows as much of the object as was seen before
        """
        if found is not None and self._is_sure(found) and (
                not is_whole or self._is_near(look, look.world @ found.pose)):
            error = turned_covariance(found.covariance, look.world[:3, :3])
            self.motion.add(look.world @ found.pose, error, seconds, self._has_moved)
            self._learn_offset(look)
        elif is_whole and (found is None or self._is_gone):
            pose = self.motion.pose.copy()  # a place tells no turn
            pose[:3, 3] = look.position - pose[:3, :3] @ self.offset
            self.motion.add(pose, look.error, seconds)

    def _is_sure(self, found: Registered) -> bool:
        """
        Tell whether its mesh fits the readings well enough.

        Where they do not tell its place along some axis, what does not fit moves it there.
        """
        std = np.sqrt(np.trace(found.covariance[:3, :3]))
        return bool(np.isfinite(found.residual) and found.fit >= _LEAST_FIT
                    and (1.0 - found.fit) * std < _UNSURE * np.linalg.norm(self.size))

    def _is_near(self, look: Look, pose: np.ndarray) -> bool:
        """Tell whether a sighting is about where it should be of the object at a pose, (4, 4)."""
        aside = look.position - pose[:3, :3] @ self.offset - pose[:3, 3]
        return bool(np.linalg.norm(aside) < _ASIDE * np.linalg.norm(self.size))

    def judge(self, seen: Seen, look: Look, fit: float, now: float) -> None:
        """
        Tell whether readings contradict the mesh; while they do so for long, it is stale.

        :param seen: its samples, where it is now
        :param fit: share of the readings that it explains
        """
        outside = float(1.0 - self.holds(look.points).mean())
        if fit >= _LEAST_FIT and not self.is_seen_through(seen) and (
                outside < _MOST_OUTSIDE and not self._is_sunk(seen, look)):
            self.bad_since, self.is_stale = None, False
            return
        self.bad_since = now if self.bad_since is None else self.bad_since
        if now - self.bad_since > _STALE and not self.is_stale:
            self.is_stale, self.best = True, None
            if np.isinf(self.modelled_quality):  # of a remembered one
                self.modelled_quality = look.quality

    def _is_sunk(self, seen: Seen, look: Look) -> bool:
        """Tell whether its mesh reaches into what carries it."""
        support, pose = look.sighting.placement.support, seen.pose
        if support is None:
            return False
        lowest = (self.places @ (support.normal @ pose[:3, :3])).min()
        return bool(support.height(pose[:3, 3]) + lowest < -_MOST_SUNK - seen.margin)

    def is_seen_through(self, seen: Seen) -> bool:
        """Tell whether readings see through what they once told of it."""
        told = seen.steep & (self.counts.take(seen.samples) > 0)
        count = np.count_nonzero(told & np.isfinite(seen.behind))
        return count >= _FEWEST and (
            np.count_nonzero(told & (seen.behind > seen.margin)) >= _MOST_THROUGH * count)

    def fit(self, seen: Seen, is_owned: bool = False) -> float:
        """
        Return the share of the readings where its mesh should be that lie on it, 1 without any.

        :param is_owned: only of those that show it
        """
        deeper = (self.places - self.surface.points) @ seen.pose[2, :3]
        off = np.abs(seen.behind + deeper.take(seen.samples))
        if is_owned:
            off = off[seen.owned]
        count = np.count_nonzero(np.isfinite(off))
        return np.count_nonzero(off < seen.margin) / count if count else 1.0

    def recall(self, seen: Seen, look: Look) -> None:
        """
        Take a remembered object that is seen again for one that rests where it lies on readings.

        :param seen: the samples of its mesh, where it was
        """
        if self._is_recalled and seen.owned.any() and (
                self.fit(seen, is_owned=True) >= _LEAST_FIT):
            self.offset, self._moving = self._local(look.position), 0
            self._guess_beyond(seen)
        self._is_recalled = False

    def rests(self, look: Look, is_whole: bool, seen: Seen, change: np.ndarray) -> bool:
        """
        Tell whether nothing shows that it has moved since its mesh was made or registered.

        Neither do readings, nor has the middle of its sightings gone farther than usual, and than
        another view of it explains. What has moved by readings is registered for some frames more,
        where it was to begin with.

        :param seen: samples of its mesh, where it was
        :param change: F statistics of readings if it rested, and if it went on, (2,); NaN where
            they show too little
        """
        center = self.center
        shift = float(np.linalg.norm(look.position - center))
        usual, self._shift = self._shift, 0.8 * self._shift + 0.2 * min(shift, 2 * self._shift)
        toward, before = look.world[:3, 3] - center, self._toward
        self._toward = toward / np.linalg.norm(toward)
        turn = float(np.linalg.norm(self._toward - before)) if before.any() else 0.0
        is_seen_through = self.is_seen_through(seen)
        self._is_gone = is_seen_through or bool(np.isnan(change[0]))
        self._has_moved = is_seen_through or change[0] >= _MOVED
        goes_on = bool(self.motion.velocity.any()) and (
            change[1] < change[0] or self.base.turned(seen) > SAME_SIDE)
        if self._has_moved or goes_on or is_whole and (
                shift > 3.0 * usual + _TURNS * turn * self.surface.radius):
            is_lively = self._has_moved or goes_on or self.motion.velocity.any()
            self._moving = _LIVELY if is_lively else 0
            return False
        self.motion.rest()
        self._moving -= 1
        if is_whole and self._moving >= 0:
            return False
        self._moving = -1
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
        start = np.linalg.inv(look.world) @ self.motion.predicted(seconds)
        return Sought(
            self.surface, start, look.window, look.mask, self.places, self.counts > 0,
            SWERVE if self.motion.velocity.any() or not self._has_moved else _STARTS)

    def learn(self, seen: Seen, is_base: bool = False) -> None:
        """
        Remember what readings show of its surface, also where its mesh is but a guess.

        :param seen: the samples of its mesh, where it is now
        :param is_base: its mesh was registered to the readings; else they are remembered where
            there were none then
        """
        if is_base and self.bad_since is not None:
            return
        self.base = Base.begun(seen) if is_base else self.base.learned(seen)
        new = np.flatnonzero(seen.owned & (self.counts.take(seen.samples) < _AVERAGED) & (
            np.abs(seen.behind) < _GUESSED * self.surface.radius))
        if not len(new):
            return
        samples, points = seen.samples[new], seen.points.take(new, 1)
        self.counts[samples] += 1
        away = seen.behind[new] / self.counts[samples]
        self.places[samples] += (points * (away / points[2])).T @ seen.pose[:3, :3]
        self.base.within[samples] += away * seen.slope[new]

    def _guess_beyond(self, seen: Seen) -> None:
        """Take its mesh for a guess where it does not lie on readings, such as on its far side."""
        told = np.isin(np.arange(SAMPLES), seen.samples[seen.lies])
        self.counts[~told] = 0

    def _forget_readings(self) -> None:
        """Take the mesh for what it is."""
        self.places, self.counts = self.surface.points.copy(), np.full(SAMPLES, _AVERAGED)
        self.base, self._moving = Base(), 0

    def consider(self, look: Look, better_view: float, now: float) -> None:
        """
        Keep its latest look for the next reconstruction when it is clearly better.

        A mesh that readings contradict is made again of a look about as good as the best one so
        far; the longer they do, the less is asked for.
        """
        if self.model is not None and (not self.is_whole or is_cut(look.sighting)):
            return
        needed = better_view * self.modelled_quality
        if self.is_stale and self.bad_since is not None:
            needed = self.modelled_quality * 0.5 ** ((now - self.bad_since) / _HALVING)
        if self.best is not None:
            needed = max(needed, self.best_quality)
        if look.quality > needed:
            self.best, self.best_quality, self.best_since = look.sighting, look.quality, now
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
            seen, = compared(
                [self.surface], [self.surface.points], pose_of(model)[None], frame)
            self.base = Base.begun(seen)
            self._guess_beyond(seen)

    def move(self, new_from_old: np.ndarray) -> None:
        """Go on in another world."""
        turn = new_from_old[:3, :3]
        self.motion.restart(new_from_old @ self.motion.pose)
        self.motion.velocity = (self.motion.velocity.reshape(2, 3) @ turn.T).ravel()
        self.motion.error = turned_covariance(self.motion.error, turn)

    def miss(self, seen: Seen) -> None:
        """Take in that it was not detected; its samples tell where it should be."""
        rows, columns = seen.rows, seen.columns
        bbox = np.zeros(4) if not len(rows) else np.array(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
        self.detection, self.is_whole = replace(self.detection, bbox=bbox, mask=None), False

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
