# SPDX-License-Identifier: Apache-2.0
"""
How well objects keep their ids, places and meshes over sequences of frames.

    OMP_NUM_THREADS=1 python benchmarks/sequences.py [--frames 120] [--only WORD] [--seed 0]

Recorded frames of `data/frames` with noise of 2 mm that differs from frame to frame, and rendered
tables of boxes, cans, bottles and bowls whose poses are known, with the noise, holes and shadows
of `learning/sensors.py`. Frames go through the pipeline at 10 Hz, as in the node.

- ids: that were shown at all, of how many objects; ghosts: of those, what is no object
- switches: how often an object got another id
- position, turn: how far meshes are off where they were made, relative to the object: median and
  greatest; of what is round only its lean counts, and boxes have four sides that are alike
- center: how far the middle of meshes is off that of the object, median
- std: of the position of objects that rest, the greatest; rebuilt: the most meshes of an object
- tracker: processor time of the tracker a frame
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import process_time

import cv2
import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from img2scene_ros.camera import Camera
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.layouts import find_frames
from img2scene_ros.learning.sensors import read_depth
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import look_at
from img2scene_ros.rendering.raycast import render
from img2scene_ros.settings import read_assignments
from img2scene_ros.tables import markdown_table
from img2scene_ros.turning import turned_frame
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Texture

FRAMES = Path(__file__).parents[1] / 'data/frames'
CAMERA = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)
PERIOD = 0.1  # seconds
NEAR = 0.07  # metres from an object's middle within which what is shown is that object
SETTINGS = {'detector': 'tabletop', 'reconstructor': 'depth_shell', 'texture': 'none'}
COLUMNS = ('sequence', 'frames', 'ids', 'ghosts', 'switches', 'position [mm]', 'turn [degrees]',
           'center [mm]', 'std [mm]', 'rebuilt', 'tracker [ms]', 'notes')


@dataclass
class Draws:
    """What is drawn of the rendered sequences: the noise, and how things stand turned."""

    seed: int = 0


DRAWS = Draws()


@dataclass(frozen=True, eq=False)
class Thing:
    """
    An object of known pose.

    - mesh: stands on z = 0 in its own frame
    - is_round: its turn about z cannot be seen
    """

    mesh: trimesh.Trimesh
    color: tuple[int, int, int]
    is_round: bool = False

    @property
    def center(self) -> np.ndarray:
        """Return the middle of its bounding box, (3,) metres."""
        return self.mesh.bounds.mean(axis=0)


@dataclass(frozen=True, eq=False)
class Moment:
    """
    A frame and what is true then.

    - poses: (4, 4) optical frame from object, by the thing's index; those that are there
    """

    frame: Frame
    poses: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(eq=False)
class Record:
    """What was shown of one thing."""

    ids: list[int] = field(default_factory=list)
    centers: list[float] = field(default_factory=list)  # metres
    # The mesh of each id, where it was made from the middle, metres, and by which quarter turned.
    models: dict[int, tuple[ObjectModel, np.ndarray, np.ndarray]] = field(default_factory=dict)
    drifts: list[tuple[float, float]] = field(default_factory=list)  # metres, degrees


def box(*size: float) -> trimesh.Trimesh:
    """Return a box on z = 0."""
    return trimesh.creation.box(size).apply_translation((0, 0, size[2] / 2))


def can(radius: float, height: float) -> trimesh.Trimesh:
    """Return an upright cylinder on z = 0."""
    return trimesh.creation.cylinder(radius, height, sections=48).apply_translation(
        (0, 0, height / 2))


def bottle(radius: float, height: float) -> trimesh.Trimesh:
    """Return a bottle on z = 0."""
    return trimesh.creation.revolve(
        [(0, 0), (radius, 0), (radius, 0.65 * height), (0.4 * radius, 0.85 * height),
         (0.4 * radius, height), (0, height)], sections=48)


THINGS = (
    Thing(box(0.06, 0.16, 0.21), (170, 40, 40)), Thing(box(0.1, 0.13, 0.06), (40, 110, 60)),
    Thing(can(0.034, 0.1), (200, 190, 60), True), Thing(bottle(0.035, 0.2), (60, 80, 190), True),
    Thing(box(0.07, 0.09, 0.12), (220, 220, 220)), Thing(can(0.05, 0.14), (90, 50, 130), True),
    Thing(box(0.05, 0.17, 0.04), (230, 130, 40)), Thing(can(0.04, 0.06), (30, 30, 30), True),
    Thing(bottle(0.03, 0.24), (30, 150, 150), True), Thing(box(0.08, 0.08, 0.08), (150, 100, 60)))
PLACES = ((0.0, 0.0), (0.02, 0.24), (0.2, -0.05), (-0.2, 0.12), (0.12, -0.25), (-0.15, -0.17),
          (0.25, 0.18), (0.33, -0.2), (-0.33, -0.08), (-0.28, 0.33))


def placed(x: float, y: float, degrees: float = 0.0) -> np.ndarray:
    """Return a pose on the table, (4, 4)."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('z', degrees, degrees=True).as_matrix()
    pose[:2, 3] = x, y
    return pose


def standing(count: int) -> dict[int, np.ndarray]:
    """Return poses of the first things, apart from each other."""
    return {index: placed(*PLACES[index], 35.0 * index + 50.0 * DRAWS.seed)
            for index in range(count)}


def view(azimuth: float = 0.0, elevation: float = 40.0, distance: float = 1.0,
         target: tuple[float, float, float] = (0.0, 0.0, 0.05)) -> np.ndarray:
    """Return the pose of a camera that looks at the table, (4, 4); degrees and metres."""
    around, up = np.radians([azimuth, elevation])
    eye = np.array(target) + distance * np.array(
        [np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    return look_at(eye, np.array(target), np.array([0.0, 0.0, 1.0]))


def table() -> Surface:
    """Return a table of 1.6 m with a pattern, as cameras that follow themselves need."""
    mesh = trimesh.creation.box((1.6, 1.6, 0.02)).apply_translation((0, 0, -0.01))
    random = np.random.default_rng(0)
    image = np.clip(random.normal(130, 45, (64, 64, 3)), 30, 230).astype(np.uint8)
    image = cv2.resize(image, (512, 512), interpolation=cv2.INTER_CUBIC)
    uv = (mesh.triangles[..., :2] / 1.6 + 0.5).astype(np.float32)
    return Surface(mesh.vertices, mesh.faces, np.full((8, 3), 130, np.uint8), 0,
                   texture=Texture(image, uv))


TABLE = table()


def drawn(
    poses: dict[int, np.ndarray], camera: np.ndarray, number: int, has_tf: bool = False,
    others: tuple[Surface, ...] = (),
) -> Moment:
    """
    Photograph things on the table.

    :param camera: its pose, (4, 4)
    :param has_tf: the frame tells the camera's pose
    """
    surfaces = [TABLE, *others]
    for index, pose in poses.items():
        mesh, color = THINGS[index].mesh, np.array(THINGS[index].color, np.uint8)
        surfaces.append(Surface(
            mesh.vertices @ pose[:3, :3].T + pose[:3, 3], mesh.faces,
            np.broadcast_to(color, (len(mesh.vertices), 3)), index + 1))
    seen = render(surfaces, CAMERA, camera)
    random = np.random.default_rng(number + 1000 * DRAWS.seed)
    depth = read_depth(  # by a sensor twice as fine, without errors that all frames share
        seen.depth, CAMERA, random, seen.color, magnification=0.5, is_calibrated=True)
    frame = Frame(seen.color, CAMERA, depth, round((1000.0 + PERIOD * number) * 1e9),
                  world_from_camera=camera if has_tf else None,
                  world_id='table' if has_tf else '')
    to_camera = np.linalg.inv(camera)
    return Moment(frame, {index: to_camera @ pose for index, pose in poses.items()})


def plate(side: float, camera: np.ndarray, distance: float) -> Surface:
    """Return a plate across the line of sight."""
    mesh = trimesh.creation.box((side, side, 0.01))
    mesh.apply_translation((0, 0, distance)).apply_transform(camera)
    return Surface(mesh.vertices, mesh.faces, np.full((8, 3), 70, np.uint8), 100)


def resting(frames: int) -> Iterator[Moment]:
    """Yield things at rest before a camera at rest."""
    for number in range(frames):
        yield drawn(standing(5), view(), number)


def behind_plate(side: float) -> Callable[[int], Iterator[Moment]]:
    """Return a sequence in which a plate is before the scene for 3 s."""
    def moments(frames: int) -> Iterator[Moment]:
        for number in range(frames):
            hides = frames // 3 <= number < frames // 3 + 30
            others = (plate(side, view(), 0.7),) if hides else ()
            yield drawn(standing(5), view(), number, others=others)
    return moments


def turning(frames: int) -> Iterator[Moment]:
    """Yield a box that is turned by 90 degrees, 4 each frame, beside one that rests."""
    first = 37.0 * DRAWS.seed
    for number in range(min(frames, 60)):
        degrees = first + 20.0 + 4.0 * min(max(number - 12, 0), 22.5)
        poses = {0: placed(0.0, -0.12, degrees), 1: placed(0.1, 0.2, first + 10.0)}
        yield drawn(poses, view(), number)


def conveyor(frames: int) -> Iterator[Moment]:
    """Yield things that go along at 5 cm/s after a second."""
    turn = 30.0 + 37.0 * DRAWS.seed
    for number in range(min(frames, 90)):
        along = 0.05 * PERIOD * max(number - 10, 0) - 0.3
        yield drawn({0: placed(0.1, along, turn), 2: placed(0.0, along + 0.2)}, view(), number)


def seen_from(
    path: Callable[[int], np.ndarray], has_tf: bool,
) -> Callable[[int], Iterator[Moment]]:
    """
    Return things at rest before a camera that begins to move after 8 frames.

    :param path: its pose, (4, 4), by the number of the frame from then on
    """
    def moments(frames: int) -> Iterator[Moment]:
        for number in range(min(frames, 60)):
            yield drawn(standing(5), path(max(0, number - 8)), number, has_tf)
    return moments


def circling(number: int) -> np.ndarray:
    """Go around the table at 2 degrees a frame."""
    return view(azimuth=2.0 * number)


def tilting(number: int) -> np.ndarray:
    """Tilt up and down by 10 degrees."""
    nod = np.eye(4)
    nod[:3, :3] = Rotation.from_rotvec(
        [0.18 * np.sin(2 * np.pi * number / 50), 0.0, 0.0]).as_matrix()
    return view() @ nod


def sliding(number: int) -> np.ndarray:
    """Slide sideways by 1 cm a frame, there and back."""
    pose = view()
    pose[1, 3] += 0.01 * min(number, 50 - number)
    return pose


def around_ten(has_tf: bool) -> Callable[[int], Iterator[Moment]]:
    """Return a camera once around a table of ten things, so near that some leave its view."""
    def moments(frames: int) -> Iterator[Moment]:
        for number in range(frames):
            pose = view(azimuth=360.0 / frames * number, elevation=45.0, distance=0.95,
                        target=(0.0, 0.0, 0.0))
            yield drawn(standing(10), pose, number, has_tf)
    return moments


def noisy_frame(number: int) -> Frame:
    """Return the recorded frame `ycb_1` with noise of 2 mm."""
    frame = load_frame(find_frames(FRAMES / 'ycb_1')[0])
    noise = np.random.default_rng(number).normal(0, 0.002, frame.shape).astype(np.float32)
    return replace(frame, depth=frame.depth + noise,
                   stamp_ns=round((1000.0 + PERIOD * number) * 1e9))


def recorded(change: Callable[[Frame], Frame] = lambda frame: frame
             ) -> Callable[[int], Iterator[Moment]]:
    """Return `ycb_1` at rest, changed for 3 s after a third of the frames."""
    def moments(frames: int) -> Iterator[Moment]:
        for number in range(frames):
            frame = noisy_frame(number)
            is_changed = frames // 3 <= number < frames // 3 + 30
            yield Moment(change(frame) if is_changed else frame)
    return moments


def with_plate(share: float, is_read: bool = True) -> Callable[[Frame], Frame]:
    """Return what puts a plate 15 cm before what is nearest, or missing readings there."""
    def change(frame: Frame) -> Frame:
        height, width = frame.shape
        rows, columns = (slice(round(size * (0.5 - share / 2)), round(size * (0.5 + share / 2)))
                         for size in (height, width))
        depth, color = frame.depth.copy(), frame.color.copy()
        near = np.nanpercentile(depth[rows, columns], 2) - 0.15
        noise = np.random.default_rng(0).normal(0, 0.002, depth[rows, columns].shape)
        depth[rows, columns] = near + noise if is_read else np.nan
        if is_read:
            color[rows, columns] = 90
        return replace(frame, color=color, depth=depth)
    return change


def rolled(quarters: int) -> Callable[[int], Iterator[Moment]]:
    """Return a camera that rests, rolled by quarters."""
    def moments(frames: int) -> Iterator[Moment]:
        for number in range(min(frames, 20)):
            yield Moment(turned_frame(noisy_frame(number), quarters))
    return moments


SEQUENCES: dict[str, Callable[[int], Iterator[Moment]]] = {
    'ycb_1, 2 mm noise': recorded(),
    'ycb_1, large plate for 3 s': recorded(with_plate(0.8)),
    'ycb_1, small plate for 3 s': recorded(with_plate(0.3)),
    'ycb_1, large hole for 3 s': recorded(with_plate(0.8, is_read=False)),
    'ycb_1, small hole for 3 s': recorded(with_plate(0.3, is_read=False)),
    'ycb_1, rolled by 90': rolled(1),
    'ycb_1, rolled by 180': rolled(2),
    'at rest': resting,
    'large plate for 3 s': behind_plate(0.5),
    'small plate for 3 s': behind_plate(0.18),
    'box turned, 4 degrees a frame': turning,
    'conveyor, 5 cm/s': conveyor,
    'circling, TF': seen_from(circling, True),
    'tilting, TF': seen_from(tilting, True),
    'sliding, TF': seen_from(sliding, True),
    'circling': seen_from(circling, False),
    'tilting': seen_from(tilting, False),
    'sliding': seen_from(sliding, False),
    'around ten objects, TF': around_ten(True),
    'around ten objects': around_ten(False),
}


def measured(name: str, frames: int, settings: dict[str, object]) -> list[str]:
    """Return the row of a sequence."""
    pipeline = Pipeline(*parse_settings(SETTINGS | settings))
    tracking = timed(pipeline)
    records: dict[int, Record] = defaultdict(Record)
    positions: dict[int, list[np.ndarray]] = defaultdict(list)
    count, notes, meshes, there, ghosts = 0, set(), defaultdict(set), set(), set()
    for moment in islice(SEQUENCES[name](frames), frames):
        pipeline.perceive(moment.frame, is_streamed=True)
        while pipeline.reconstruct_next() is not None:
            pass
        scene, count = pipeline.scene, count + 1
        notes |= set(scene.notes)
        there |= set(moment.poses)
        taken = set()
        for one in scene.objects:
            positions[one.id].append(one.position)
            if one.model.fit or one.is_final:
                meshes[one.id].add(id(one.model))
            thing = nearest(one, moment.poses)
            if thing is None or thing in taken:
                ghosts.add(one.id)
                continue
            taken.add(thing)
            note_object(records[thing], thing, moment.poses[thing], one)
    is_true = bool(there)
    drifts = np.array([drift for record in records.values() for drift in record.drifts] or [
        (np.nan, np.nan)])
    switches = sum(len(set(record.ids)) - 1 for record in records.values() if record.ids)
    centers = [center for record in records.values() for center in record.centers]
    stds = [1000 * np.linalg.norm(np.std(every[len(every) // 3:], axis=0))
            for every in positions.values() if len(every) > 5]
    last = len(scene.objects)
    return [
        name, str(count), f'{len(positions)} of {len(there) or 5}',
        str(len(ghosts)) if is_true else f'{len(positions) - 5}',
        str(switches) if is_true else ('' if last == 5 else f'{last} at the end'),
        *((spread(1000 * drifts[:, 0]), spread(drifts[:, 1])) if is_true else ('', '')),
        f'{1000 * np.median(centers):.1f}' if centers else '',
        f'{max(stds):.1f}' if stds else '',
        str(max(map(len, meshes.values()), default=0)),
        f'{1000 * tracking() / count:.1f}', '; '.join(note[:40] for note in notes)]


def timed(pipeline: Pipeline) -> Callable[[], float]:
    """Return what tells the processor time that the pipeline's tracker took so far, seconds."""
    spent, update = [0.0], pipeline._tracker.update

    def timed_update(*arguments: object) -> None:
        begin = process_time()
        update(*arguments)
        spent[0] += process_time() - begin

    pipeline._tracker.update = timed_update
    return lambda: spent[0]


def nearest(one: SceneObject, poses: dict[int, np.ndarray]) -> int | None:
    """Return the index of the thing whose middle is where an object is shown, if any."""
    apart = {index: np.linalg.norm(one.position - middle(index, pose))
             for index, pose in poses.items()}
    best = min(apart, key=lambda index: apart[index], default=None)
    return best if best is not None and apart[best] < NEAR else None


def middle(index: int, pose: np.ndarray) -> np.ndarray:
    """Return the middle of a thing at a pose, (3,) metres."""
    return pose[:3, :3] @ THINGS[index].center + pose[:3, 3]


def note_object(record: Record, thing: int, pose: np.ndarray, one: SceneObject) -> None:
    """Add to the record of a thing, by index, how far an object is off."""
    record.ids.append(one.id)
    local = pose[:3, :3].T @ (one.position - middle(thing, pose))
    record.centers.append(float(np.linalg.norm(local)))
    if one.id not in record.models or record.models[one.id][0] is not one.model:
        side = min((placed(0, 0, 90.0 * quarters)[:3, :3] for quarters in range(4)),
                   key=lambda side: angle(one.rotation, pose[:3, :3] @ side))
        record.models[one.id] = one.model, local, side
    _, at_first, side = record.models[one.id]
    turn = angle(one.rotation, pose[:3, :3] @ side)
    if THINGS[thing].is_round:
        turn = np.degrees(np.arccos(np.clip(one.rotation[:, 2] @ pose[:3, 2], -1, 1)))
    record.drifts.append((float(np.linalg.norm(local - at_first)), turn))


def angle(one: np.ndarray, other: np.ndarray) -> float:
    """Return by how many degrees two rotations differ."""
    return float(np.degrees(Rotation.from_matrix(one @ other.T).magnitude()))


def spread(values: np.ndarray) -> str:
    """Return median and greatest of some numbers."""
    return f'{np.median(values):.1f}, {values.max():.1f}'


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n')[0])
    parser.add_argument('--frames', type=int, default=120, help='of a sequence, at most')
    parser.add_argument('--only', default='', help='sequences whose name holds this')
    parser.add_argument('--set', action='append', default=[], help='option, NAME=VALUE')
    parser.add_argument('--seed', type=int, default=0, help='of noise and of how things stand')
    chosen = parser.parse_args()
    DRAWS.seed = chosen.seed
    cv2.setNumThreads(1)
    given = read_assignments(chosen.set)
    print(markdown_table(COLUMNS, [
        measured(name, chosen.frames, given) for name in SEQUENCES if chosen.only in name]))
