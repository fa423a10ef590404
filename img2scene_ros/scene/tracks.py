# SPDX-License-Identifier: Apache-2.0
"""Objects over time, in the world: which sighting is which, what is hidden, what needs a mesh."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from img2scene_ros.localization.extents import is_cut
from img2scene_ros.scene.clock import StampClock
from img2scene_ros.scene.evidence import Seen
from img2scene_ros.scene.evidence import compared
from img2scene_ros.scene.evidence import moved_by
from img2scene_ros.scene.look import Look
from img2scene_ros.scene.matching import has_size
from img2scene_ros.scene.matching import is_covered
from img2scene_ros.scene.matching import is_explained
from img2scene_ros.scene.matching import is_part
from img2scene_ros.scene.matching import matched
from img2scene_ros.scene.matching import returned
from img2scene_ros.scene.matching import shows_all
from img2scene_ros.scene.registration import registered
from img2scene_ros.scene.track import Track
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

_MAX_LOST = 100  # objects that may still come back
# Seconds after which what lies within a known object is an object of its own, and after which one
# that should be in view is lost where no depth can tell.
_PERSISTENT, _UNSEEN = 2.0, 2.0
_SETTLES = 1.0  # seconds for which a view is the best one before a better mesh is made of it
_MOST_OFF = 0.02  # metres by which the place of an object is in doubt at most, when looked for


class Tracker:
    """
    Keeps the objects of a scene, in the world.

    Seconds are those of the frames' stamps.

    :param forget_after: seconds for which an object that is hidden or out of view is remembered;
        one whose place is seen to be empty goes at once
    :param better_view: an object is rebuilt when it is seen this many times better
    :param birth: sightings that make an object, seconds in which they are, and least mean score
    """

    def __init__(
        self, forget_after: float = 60.0, better_view: float = 1.5,
        birth: tuple[int, float, float] = (3, 1.0, 0.3),
    ) -> None:
        self.forget_after = forget_after
        self.better_view = better_view
        self.birth = birth
        self._tracks: list[Track] = []  # tentative ones and lost ones, too
        self._ids = count(1)
        self._clock = StampClock()
        self._world = np.eye(4)  # from the optical frame of the latest frame
        self._is_alone = True

    def update(
        self, frame: Frame, sightings: list[Sighting], proxies: list[ObjectModel],
        is_alone: bool = True,
    ) -> None:
        """
        Take in all sightings of a frame, with a proxy for each that turns out to be new.

        :param frame: with the camera's pose in the world, else that of the world's axes
        :param is_alone: the frame is not one of a stream: all that it shows is there, also what
            seems to be in the air, as things at the edge of what carries them do
        """
        seconds = self._clock.advance(frame.stamp_ns)
        self._world, self._is_alone = frame.pose, is_alone
        looks = [Look(*pair) for pair in zip(sightings, proxies)]
        present = self._shown
        pairs = matched(present, looks, seconds)
        shown = {track: looks[index] for index, track in pairs.items()}
        missing = [track for track in present if track not in shown]
        seen = _compared([*missing, *_meshed(shown, frame)], frame, shown)
        if missing:
            parts = _parts({track: seen[track] for track in missing}, {
                index: look for index, look in enumerate(looks) if index not in pairs})
            pairs |= parts
            for index, track in parts.items():
                shown[track] = looks[index]
                del seen[track]  # compared as what nothing shows
        self._see(shown, seen, frame, seconds)
        known = [looks[index] for index in pairs]
        wholes = [looks[index] for index, track in pairs.items() if track.is_whole]
        for track in missing:
            if track not in pairs.values():
                self._miss(track, seen[track], frame, wholes)
        new = [look for index, look in enumerate(looks) if index not in pairs]
        floating = [False] * len(new) if is_alone else self._floating(new, known, frame.support)
        self._begin(new, floating, frame, seconds, is_alone)
        self._forget()

    def next_jobs(self, count: int) -> list[tuple[int, Sighting]]:
        """
        Return ids and best views of the objects that need a mesh most; mark them as in work.

        :param count: greatest number of jobs
        """
        waiting = [track for track in self._shown
                   if track.needs_mesh(self._clock.now, 0.0 if self._is_alone else _SETTLES)]
        waiting.sort(key=lambda track: (track.model is None, track.best_quality), reverse=True)
        jobs = []
        for track in waiting[:count]:
            track.work_pose = track.best_pose
            track.modelled_quality = max(track.modelled_quality, track.best_quality)
            assert track.best is not None  # see above
            jobs.append((track.id, track.best))
            track.best = None
        return jobs

    def finish(
        self, id: int, sighting: Sighting, model: ObjectModel | None, note: str = '',
    ) -> None:
        """Take in the mesh of a job, or the reason why there is none."""
        for track in self._tracks:
            # None is in work of an object that came back elsewhere meanwhile.
            if track.id == id and track.work_pose is not None:
                pose, track.work_pose, track.note = track.work_pose, None, note
                if model is not None:
                    track.wear(model, pose, sighting)

    def objects(self) -> tuple[SceneObject, ...]:
        """Return the objects that are there now, by id, in the latest frame's optical frame."""
        return tuple(track.scene_object(self._world, self._clock.now) for track in sorted(
            self._shown, key=lambda track: track.id))

    def clear(self) -> None:
        """Forget all objects; their ids are not used again."""
        self._tracks.clear()

    def remember(self, objects: Sequence[SceneObject]) -> None:
        """
        Go on with objects that were seen at another time, in place of those that are known.

        :param objects: in the latest frame's optical frame; they keep their ids
        """
        self._tracks = [
            Track.remembered(item, self._world, self._clock.now) for item in objects]
        self._ids = count(max([next(self._ids), *(item.id + 1 for item in objects)]))

    def move(self, new_from_old: np.ndarray) -> None:
        """Go on in another world, (4, 4) from the one so far."""
        for track in self._tracks:
            track.move(new_from_old)

    def lose_all(self) -> None:
        """Show nothing until it is seen again, and no mesh: nobody knows from where it is seen."""
        self._tracks = [track for track in self._tracks if not track.is_tentative]
        for track in self._tracks:
            _lose(track)
            track.model = track.work_pose = None

    @property
    def _shown(self) -> list[Track]:
        return [track for track in self._tracks
                if track.state in ('visible', 'hidden', 'out_of_view')]

    def _see(
        self, pairs: dict[Track, Look], seen: dict[Track, Seen], frame: Frame, seconds: float,
    ) -> None:
        """
        Take in sightings of known objects.

        :param seen: those of them that are already compared with the frame
        """
        if not pairs:
            return
        meshed = _meshed(pairs, frame)
        wholes = {track: has_size(track, look) for track, look in pairs.items()}
        seen = seen | _compared([track for track in pairs if track not in seen and (
            track in meshed or not wholes[track])], frame, pairs)
        changes = dict(zip(meshed, moved_by(
            [seen[track] for track in meshed], [track.base for track in meshed],
            [track.motion.step(seconds).reshape(2, 3) @ frame.pose[:3, :3] for track in meshed])))
        shaped, now = {}, self._clock.now
        for track, look in pairs.items():
            wholes[track] = wholes[track] or shows_all(track, look, seen[track])
            if track in meshed:
                track.recall(seen[track], look)
            if track in meshed and track.rests(
                    look, wholes[track], seen[track], changes[track]):
                track.judge(seen[track], look, track.fit(seen[track]), now)
                track.learn(seen[track])
            elif track in meshed and track.is_shaped:
                shaped[track] = look
            else:
                track.follow(look, None, seconds, wholes[track])
        self._register(shaped, wholes, frame, seconds)
        for track, look in pairs.items():
            track.see(look, now, wholes[track])
            if not track.is_tentative:
                track.consider(look, self.better_view, now)

    def _register(
        self, pairs: dict[Track, Look], wholes: dict[Track, bool], frame: Frame, seconds: float,
    ) -> None:
        """Follow objects that may have moved by their meshes."""
        if not pairs:
            return
        found = registered(frame, [track.sought(look, seconds) for track, look in pairs.items()])
        for (track, look), one in zip(pairs.items(), found):
            track.follow(look, one, seconds, wholes[track])
        seen = _compared(list(pairs), frame, pairs)
        for (track, look), one in zip(pairs.items(), found):
            track.judge(seen[track], look, one.fit, self._clock.now)
            track.learn(seen[track], is_base=True)

    def _miss(self, track: Track, seen: Seen, frame: Frame, others: list[Look]) -> None:
        """Find out what became of an object that was not detected."""
        track.miss(seen)
        since = self._clock.now - track.seen[-1]
        variance = track.motion.covariance(since).diagonal()[:3].max()
        track.state = seen.state(min(np.sqrt(variance), _MOST_OFF))
        is_measured = frame.depth is not None and 'sensor' in track.placement.depth_source
        if (track.state == 'lost' or since > self.forget_after
                or track.state == 'visible' and is_covered(seen, others)
                or not is_measured and track.state != 'out_of_view' and since > _UNSEEN):
            _lose(track)

    def _floating(
        self, looks: list[Look], known: list[Look], support: SupportPlane | None,
    ) -> list[bool]:
        """
        Tell which looks show something in the air.

        What touches something that stands, stands on it or leans against it; but hands and arms,
        which come in over the border of the picture, touch things, too.
        """
        seeming = [look.floats(support, [track.holds for track in self._shown]) for look in looks]
        standing = known + [look for look, floats in zip(looks, seeming) if not floats]
        return [floats and (is_cut(look.sighting) or not any(map(look.touches, standing)))
                for look, floats in zip(looks, seeming)]

    def _begin(
        self, looks: list[Look], floating: list[bool], frame: Frame, seconds: float,
        is_alone: bool,
    ) -> None:
        """
        Keep what is no known object as tentative ones, until it has been seen often enough.

        What hides a part of an object may leave several pieces of it, which are none.

        :param floating: which looks show something in the air, which is none
        """
        tentative = [track for track in self._tracks if track.is_tentative]
        pairs = matched(tentative, looks, seconds)
        shown = [track for track in self._shown if track.state != 'out_of_view']
        broken = [track for track in shown if not track.is_whole]
        for index, (look, floats) in enumerate(zip(looks, floating)):
            track = pairs.get(index)
            if floats or is_explained(broken, look):
                if track is not None:
                    self._tracks.remove(track)
                continue
            if track is None:
                track = Track.begun(look, self._clock.now)
                self._tracks.append(track)
            else:
                self._see({track: look}, {}, frame, seconds)
            is_part = is_explained(shown, look)
            if is_alone and not is_part or self._is_born(track, is_part):
                self._bear(track, look)
        seen = [id(track) for track in pairs.values()]
        for track in tentative:
            track.seen_always &= id(track) in seen

    def _is_born(self, track: Track, is_part: bool) -> bool:
        sightings, seconds, score = self.birth
        now = self._clock.now
        if track.score < score:
            return False
        if is_part:
            return track.seen_always and now - track.first_seen > _PERSISTENT
        often = sum(now - time <= seconds for time in track.seen) >= sightings
        steadily = track.seen_always and now - track.first_seen >= seconds
        return often or steadily and len(track.seen) > 1

    def _bear(self, track: Track, look: Look) -> None:
        """Show a tentative object, under its old id when it comes back."""
        lost = [one for one in self._tracks if one.state == 'lost']
        before, is_at_its_place = returned(lost, look)
        track.state = 'visible'
        if before is None:
            track.id = next(self._ids)
        else:
            track.take_over(before, is_at_its_place)
            self._tracks.remove(before)
        track.consider(look, self.better_view, self._clock.now)

    def _forget(self) -> None:
        """Drop tentative objects that turned out to be nothing, and the oldest lost ones."""
        now = self._clock.now
        self._tracks = [track for track in self._tracks if not (
            track.is_tentative and now - track.seen[-1] > self.birth[1])]
        lost = [track for track in self._tracks if track.state == 'lost']
        lost.sort(key=lambda track: track.seen[-1])
        for track in lost[:-_MAX_LOST]:
            self._tracks.remove(track)


def _parts(missing: dict[Track, Seen], looks: dict[int, Look]) -> dict[int, Track]:
    """
    Return which look, by index, shows what object, and more than was known of it.

    One that shows several objects shows none.
    """
    parts: dict[int, Track] = {}
    for number, look in looks.items():
        held = [track for track, seen in missing.items() if is_part(seen, look)]
        if len(held) == 1 and held[0] not in parts.values():
            parts[number] = held[0]
    return parts


def _meshed(pairs: dict[Track, Look], frame: Frame) -> list[Track]:
    """Return the objects whose meshes can be compared with a frame."""
    return [] if frame.depth is None else [track for track in pairs if track.model is not None]


def _compared(
    tracks: Sequence[Track], frame: Frame, looks: dict[Track, Look],
) -> dict[Track, Seen]:
    """
    Compare objects, as far as readings told their surfaces, with a frame.

    :param looks: what shows them, of those that are shown
    """
    if not tracks:
        return {}
    owners = np.full(frame.shape, -1, np.int16)
    for index, track in enumerate(tracks):
        if track in looks:
            owners[looks[track].window][looks[track].mask] = index
    camera_from_world = np.linalg.inv(frame.pose)
    return dict(zip(tracks, compared(
        [track.surface for track in tracks], [track.places for track in tracks],
        camera_from_world @ np.stack([track.motion.pose for track in tracks]), frame, owners)))


def _lose(track: Track) -> None:
    track.state = 'lost'
    track.best = None  # whole frames would pile up
    track.detection = replace(track.detection, mask=None)
