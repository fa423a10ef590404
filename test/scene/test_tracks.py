"""Objects over time: ids that last, objects that go, meshes that follow."""

from dataclasses import replace
from gc import collect
from weakref import ref

import numpy as np
import pytest
import trimesh
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

POSE = camera_pose(35, 0.9)


def look(*objects: trimesh.Trimesh, seed: int = 0, pose: np.ndarray = POSE) -> Frame:
    """Photograph objects."""
    return tabletop_frame(list(objects), pose, seed)[0]


def mug(x: float = 0.0, y: float = 0.0) -> trimesh.Trimesh:
    """Return a can on the table."""
    return can(0.04, 0.11).apply_translation((x, y, 0))


def crate(x: float = 0.0, y: float = 0.2) -> trimesh.Trimesh:
    """Return a box on the table."""
    return box(0.1, 0.12, 0.07).apply_translation((x, y, 0))


def ids(scene: Scene) -> list[int]:
    """Return the ids of a scene."""
    return [found.id for found in scene.objects]


def test_ids_and_meshes_last() -> None:
    """Noise from frame to frame makes no new objects and no new meshes."""
    pipeline = Pipeline()
    first = pipeline.run(look(mug(), crate()))
    meshes = {found.id: found.model for found in first.objects}
    for seed in range(1, 5):
        scene = pipeline.run(look(mug(), crate(), seed=seed))
        assert ids(scene) == ids(first)
        assert all(found.model is meshes[found.id] for found in scene.objects)


def test_proxy_first_then_mesh_under_the_same_id() -> None:
    """An object is shown at once as a box, then gets its mesh."""
    pipeline = Pipeline()
    scene = pipeline.perceive(look(mug()))
    assert [found.model.reconstructor for found in scene.objects] == ['box']
    assert not scene.objects[0].is_final
    rebuilt = pipeline.reconstruct_next()
    assert [found.model.reconstructor for found in rebuilt.objects] == ['depth_shell']
    assert rebuilt.objects[0].is_final and ids(rebuilt) == ids(scene)
    assert pipeline.reconstruct_next() is None


def test_a_moved_object_keeps_id_and_mesh() -> None:
    """The mesh goes where the object goes."""
    pipeline = Pipeline()
    before = pipeline.run(look(mug(0, 0), crate()))
    after = pipeline.run(look(mug(0, -0.03), crate()))
    assert ids(after) == ids(before)
    moved = {found.id: np.linalg.norm(found.position - old.position)
             for found, old in zip(after.objects, before.objects)}
    assert sorted(moved.values()) == pytest.approx([0.0, 0.03], abs=0.006)


def test_an_object_that_moves_while_it_is_rebuilt() -> None:
    """The mesh of an older frame appears where the object is now."""
    pipeline = Pipeline()
    pipeline.perceive(look(mug(0, 0)))
    reconstruct = pipeline.reconstructor.reconstruct

    def rebuild_late(sighting: Sighting) -> ObjectModel:
        pipeline.perceive(look(mug(0, -0.03)))
        return reconstruct(sighting)

    pipeline.reconstructor.reconstruct = rebuild_late
    found, = pipeline.reconstruct_next().objects
    to_table = POSE[:3, :3] @ found.position + POSE[:3, 3]
    assert found.model.reconstructor == 'depth_shell'
    assert to_table[1] == pytest.approx(-0.03, abs=0.008)


def test_a_taken_object_goes_at_once() -> None:
    """Where the table is seen again there is no object any more."""
    pipeline = Pipeline()
    before = pipeline.run(look(mug(), crate()))
    after = pipeline.run(look(crate()))
    assert len(before.objects) == 2 and len(after.objects) == 1
    assert ids(after)[0] in ids(before)


def test_a_hidden_object_stays_a_while() -> None:
    """Behind something else an object is still there, until it is forgotten."""
    pipeline = Pipeline(PipelineOptions(forget_after=3))
    before = pipeline.run(look(can(0.03, 0.06)))
    screen = box(0.02, 0.3, 0.25).apply_translation((0.15, 0, 0))
    counts = [len(pipeline.run(look(can(0.03, 0.06), screen, seed=seed)).objects)
              for seed in range(4)]
    assert len(before.objects) == 1
    assert counts[:2] == [2, 2] and counts[-1] == 1


def test_a_returning_object_gets_its_id_back() -> None:
    """Taken away and put back, it is the same object with the same mesh."""
    pipeline = Pipeline()
    before = pipeline.run(look(mug(), crate()))
    pipeline.run(look(crate()))
    again = pipeline.run(look(mug(), crate(), seed=3))
    assert ids(again) == ids(before)


def test_a_different_object_at_the_same_place_is_new() -> None:
    """Another size is another object."""
    pipeline = Pipeline()
    before = pipeline.run(look(mug()))
    after = pipeline.run(look(can(0.07, 0.03)))
    assert len(after.objects) == 1
    assert ids(after) != ids(before)


def test_a_moved_camera_rebuilds_what_it_sees() -> None:
    """After the camera was moved, meshes are rebuilt in the new frame."""
    pipeline = Pipeline()
    pipeline.run(look(mug(), crate()))
    pose = camera_pose(50, 0.8)
    scene = pipeline.run(look(mug(), crate(), pose=pose))
    up = np.linalg.inv(pose)[:3, :3] @ (0, 0, 1)
    assert len(scene.objects) == 2
    for found in scene.objects:
        assert found.rotation[:, 2] @ up > np.cos(np.radians(1.0))


def test_a_better_view_rebuilds() -> None:
    """An object of which a third was hidden gets a new mesh when it is seen whole."""
    pipeline = Pipeline(PipelineOptions(better_view=1.2))
    screen = box(0.02, 0.3, 0.2).apply_translation((0.15, 0.16, 0))
    hidden = pipeline.run(look(can(0.04, 0.16), screen))
    tall = min(hidden.objects, key=lambda found: found.model.size[1])
    shown = pipeline.run(look(can(0.04, 0.16)))
    assert ids(shown) == [tall.id]
    assert shown.objects[0].model is not tall.model


def test_clear_forgets_and_never_reuses_ids() -> None:
    """After clear the same object gets a new id."""
    pipeline = Pipeline()
    before = pipeline.run(look(mug()))
    pipeline.clear()
    assert pipeline.reconstruct_next() is None
    after = pipeline.run(look(mug()))
    assert not set(ids(before)) & set(ids(after))


def test_header_is_the_latest_frames() -> None:
    """Stamp and frame id are those of the picture."""
    frame = replace(look(mug()), stamp_ns=17, frame_id='wrist')
    scene = Pipeline().run(frame)
    assert (scene.frame.stamp_ns, scene.frame.frame_id) == (17, 'wrist')


def test_old_frames_are_let_go() -> None:
    """However many objects come and go, only the latest frame stays in memory."""
    pipeline = Pipeline()
    frames = []
    for seed in range(4):
        frame = look(mug(), crate(0.0, -0.25 + 0.15 * seed), seed=seed)
        frames.append(ref(frame))
        pipeline.run(frame)
    del frame
    collect()
    assert [frame() is not None for frame in frames] == [False, False, False, True]


class NamingDetector(TabletopDetector):
    """Gives what it finds the next of some names, with the score that goes with it."""

    def __init__(self, names: list[tuple[str, float]]) -> None:
        super().__init__()
        self.names = names

    def detect(self, frame: Frame, support: SupportPlane | None) -> list[Detection]:
        """Find and name the objects."""
        label, score = self.names.pop(0)
        return [replace(one, label=label, score=score) for one in super().detect(frame, support)]


def test_an_object_keeps_the_name_that_its_sightings_are_surest_of() -> None:
    """Neither a frame without a name nor one doubtful other name renames it; many do."""
    pipeline = Pipeline()
    pipeline.detector = NamingDetector([
        ('object', 0.9), ('cup', 0.8), ('object', 0.9), ('bowl', 0.5), ('bowl', 0.5)])
    found = [pipeline.perceive(look(mug())).objects[0] for _ in range(5)]
    assert [one.detection.label for one in found] == ['object', 'cup', 'cup', 'cup', 'bowl']
    assert len({one.id for one in found}) == 1
