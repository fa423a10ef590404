# SPDX-License-Identifier: Apache-2.0
"""Objects over time, of which the tracker is given the true sightings: ids, losses, meshes."""

from dataclasses import replace
from gc import collect
from weakref import ref

import numpy as np
import pytest
import trimesh
from synthetic import CAMERA
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.detection import bbox_of
from img2scene_ros.reconstruction.box import BoxReconstructor
from img2scene_ros.scene.tracks import Tracker
from img2scene_ros.scene.world import World
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Detection
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Placement
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

POSE = camera_pose(35, 0.9)
SMALL = CAMERA.resized(160, 120)


class Scenery:
    """
    What a camera sees of objects on a table, with a few millimetres of error.

    :param objects: in table coordinates
    :param seed: of the errors
    :param pose: optical-to-table coordinates, (4, 4)
    :param seconds: of its stamp
    :param has_tf: the frame tells the pose
    """

    def __init__(
        self, *objects: trimesh.Trimesh, seed: int = 0, pose: np.ndarray = POSE,
        seconds: float = 0.0, has_tf: bool = False,
    ) -> None:
        frame, owners = tabletop_frame(list(objects), pose, seed, SMALL)
        support = SupportPlane(pose[2, :3], float(pose[2, 3]))
        self.frame = replace(
            frame, stamp_ns=round(seconds * 1e9), supports=(support,),
            world_from_camera=pose if has_tf else None)
        to_camera = np.linalg.inv(pose)
        random = np.random.default_rng(seed)
        self.sightings = []
        for number, mesh in enumerate(objects, 1):
            mask = owners == number
            if mask.any():
                middle = to_camera[:3, :3] @ mesh.bounds.mean(axis=0) + to_camera[:3, 3]
                detection = Detection(UNNAMED, 0.9, bbox_of(mask), mask)
                self.sightings.append(Sighting(self.frame, detection, Placement(
                    middle + random.normal(0.0, 0.001, 3), to_camera[:3, :3],
                    mesh.extents * random.normal(1.0, 0.02, 3), np.full(3, 0.002), 'sensor',
                    support)))


def mesh_of(sighting: Sighting) -> ObjectModel:
    """Return a box with more than its corners, as reconstructors make."""
    placement = sighting.placement
    mesh = trimesh.creation.box(placement.size).subdivide().subdivide()
    return ObjectModel(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32),
        np.zeros((len(mesh.vertices), 3), np.uint8), placement.position, placement.rotation,
        'mesh')


def perceive(
    tracker: Tracker, seen: Scenery, is_alone: bool = True,
) -> tuple[SceneObject, ...]:
    """Show a scenery to a tracker; return the objects."""
    proxies = [BoxReconstructor().reconstruct(sighting) for sighting in seen.sightings]
    tracker.update(seen.frame, seen.sightings, proxies, is_alone)
    return tracker.objects()


def run(tracker: Tracker, seen: Scenery) -> tuple[SceneObject, ...]:
    """Show a scenery to a tracker and rebuild what needs it; return the objects."""
    perceive(tracker, seen)
    for id, sighting in tracker.next_jobs(100):
        tracker.finish(id, sighting, mesh_of(sighting))
    return tracker.objects()


def mug(x: float = 0.0, y: float = 0.0) -> trimesh.Trimesh:
    """Return a can on the table."""
    return can(0.04, 0.11).apply_translation((x, y, 0))


def crate(x: float = 0.0, y: float = 0.2) -> trimesh.Trimesh:
    """Return a box on the table."""
    return box(0.1, 0.12, 0.07).apply_translation((x, y, 0))


def ids(objects: tuple[SceneObject, ...]) -> list[int]:
    """Return the ids of objects."""
    return [found.id for found in objects]


def test_cameras_without_depth_keep_ids() -> None:
    """In a stream, with meshes and with new objects beside the known ones."""
    tracker, found = Tracker(), []
    for number in range(12):
        things = (mug(), crate()) if number > 5 else (mug(),)
        seen = Scenery(*things, seed=number, seconds=0.1 * number, has_tf=True)
        blind = replace(seen.frame, depth=None)
        seen.frame = blind
        seen.sightings = [replace(one, frame=blind, placement=replace(
            one.placement, depth_source='fixed')) for one in seen.sightings]
        found.append(perceive(tracker, seen, is_alone=False))
        for id, sighting in tracker.next_jobs(100):
            tracker.finish(id, sighting, mesh_of(sighting))
    assert ids(found[5]) == [1]
    assert len(found[-1]) == 2 and 1 in ids(found[-1])


def test_ids_and_meshes_last() -> None:
    """Noise from frame to frame makes no new objects and no new meshes."""
    tracker = Tracker()
    first = run(tracker, Scenery(mug(), crate()))
    meshes = {found.id: found.model for found in first}
    assert len(meshes) == 2
    for seed in range(1, 5):
        objects = run(tracker, Scenery(mug(), crate(), seed=seed))
        assert ids(objects) == ids(first)
        assert all(found.model is meshes[found.id] for found in objects)


def test_proxy_first_then_mesh_under_the_same_id() -> None:
    """An object is shown at once as a box, then gets its mesh."""
    tracker = Tracker()
    shown, = perceive(tracker, Scenery(mug()))
    assert shown.model.reconstructor == 'box' and not shown.is_final
    (id, sighting), = tracker.next_jobs(2)
    assert not tracker.objects()[0].is_final
    tracker.finish(id, sighting, mesh_of(sighting))
    rebuilt, = tracker.objects()
    assert rebuilt.model.reconstructor == 'mesh'
    assert rebuilt.is_final and rebuilt.id == shown.id == id
    assert not tracker.next_jobs(2)


def test_a_moved_object_keeps_id_and_mesh() -> None:
    """The mesh goes where the object goes."""
    tracker = Tracker()
    before = run(tracker, Scenery(mug(0, 0), crate()))
    after = run(tracker, Scenery(mug(0, -0.03), crate()))
    assert ids(after) == ids(before)
    assert all(found.model is old.model for found, old in zip(after, before))
    moved = [np.linalg.norm(found.position - old.position)
             for found, old in zip(after, before)]
    assert sorted(moved) == pytest.approx([0.0, 0.03], abs=0.006)


def test_an_object_that_moves_while_it_is_rebuilt() -> None:
    """The mesh of an older frame appears where the object is now."""
    tracker = Tracker()
    perceive(tracker, Scenery(mug(0, 0)))
    (id, sighting), = tracker.next_jobs(1)
    perceive(tracker, Scenery(mug(0, -0.03)))
    tracker.finish(id, sighting, mesh_of(sighting))
    found, = tracker.objects()
    to_table = POSE[:3, :3] @ found.position + POSE[:3, 3]
    assert found.model.reconstructor == 'mesh'
    assert to_table[1] == pytest.approx(-0.03, abs=0.008)


def test_a_better_view_of_a_moved_object_does_not_move_the_mesh_in_work() -> None:
    """The mesh of the first view appears where the object is now."""
    tracker = Tracker(better_view=1.2)
    screen = box(0.02, 0.3, 0.2).apply_translation((0.15, 0.16, 0))
    perceive(tracker, Scenery(can(0.04, 0.16), screen))
    jobs = tracker.next_jobs(2)
    for step in (0.03, 0.06):
        perceive(tracker, Scenery(can(0.04, 0.16).apply_translation((0, -step, 0))))
    for id, sighting in jobs:
        tracker.finish(id, sighting, mesh_of(sighting))
    tall, = tracker.objects()
    to_table = POSE[:3, :3] @ tall.position + POSE[:3, 3]
    assert tall.model.reconstructor == 'mesh' and not tall.is_final, 'a better view waits'
    assert to_table[1] == pytest.approx(-0.06, abs=0.008)


def test_a_mesh_of_another_place_is_not_worn() -> None:
    """The object was taken away and put down elsewhere, while its mesh was made."""
    tracker = Tracker()
    perceive(tracker, Scenery(mug(0.0, -0.2), crate()))
    jobs = tracker.next_jobs(2)
    perceive(tracker, Scenery(crate()))
    before = perceive(tracker, Scenery(mug(0.1, 0.05), crate()))
    for id, sighting in jobs:
        tracker.finish(id, sighting, mesh_of(sighting))
    for found, old in zip(tracker.objects(), before):
        assert np.linalg.norm(found.position - old.position) < 0.01


def test_a_taken_object_goes_at_once() -> None:
    """Where the table is seen again there is no object any more."""
    tracker = Tracker()
    before = run(tracker, Scenery(mug(), crate()))
    after = run(tracker, Scenery(crate()))
    assert len(before) == 2 and len(after) == 1
    assert ids(after)[0] in ids(before)


def test_a_hidden_object_stays_a_while() -> None:
    """Behind something else an object is still there, until it is forgotten."""
    tracker = Tracker(forget_after=5.0)
    before, = run(tracker, Scenery(can(0.03, 0.06), seconds=100.0))
    screen = box(0.02, 0.3, 0.25).apply_translation((0.15, 0, 0))
    shown = [run(tracker, Scenery(can(0.03, 0.06), screen, seconds=seconds))
             for seconds in (101.0, 102.0, 104.9, 106.0)]
    assert [len(objects) for objects in shown] == [2, 2, 2, 1]
    stds = [np.linalg.norm(objects[0].position_std) for objects in ((before,), *shown[:3])]
    assert [objects[0].state for objects in shown[:3]] == ['hidden'] * 3
    assert stds == sorted(stds) and stds[-1] > 0.005


def test_a_returning_object_gets_its_id_back() -> None:
    """Taken away and put back, it is the same object with the same mesh."""
    tracker = Tracker()
    before = run(tracker, Scenery(mug(), crate()))
    run(tracker, Scenery(crate()))
    again = run(tracker, Scenery(mug(), crate(), seed=3))
    assert ids(again) == ids(before)
    assert all(found.model is old.model for found, old in zip(again, before))


def test_a_different_object_at_the_same_place_is_new() -> None:
    """Another size is another object."""
    tracker = Tracker()
    before = run(tracker, Scenery(mug()))
    after = run(tracker, Scenery(can(0.07, 0.03)))
    assert len(after) == 1
    assert ids(after) != ids(before)


@pytest.mark.parametrize('pose', [camera_pose(50, 0.8), camera_pose(39, 0.9)])
def test_a_moved_camera_rebuilds_what_it_sees(pose: np.ndarray) -> None:
    """After the camera was moved, far or a little, meshes are rebuilt in the new frame."""
    tracker, world = Tracker(), World()
    for seen in (Scenery(mug(), crate()), Scenery(mug(), crate(), pose=pose)):
        located = world.locate(seen.frame)
        if not located.is_followed:
            assert 'target_frame' in located.note
            tracker.lose_all()
        objects = run(tracker, seen)
    assert not located.is_followed
    up = np.linalg.inv(pose)[:3, :3] @ (0, 0, 1)
    assert len(objects) == 2
    for found in objects:
        assert found.rotation[:, 2] @ up > np.cos(np.radians(1.0))


def test_a_better_view_rebuilds() -> None:
    """An object of which a third was hidden gets a new mesh when it is seen whole."""
    tracker = Tracker(better_view=1.2)
    screen = box(0.02, 0.3, 0.2).apply_translation((0.15, 0.16, 0))
    hidden = run(tracker, Scenery(can(0.04, 0.16), screen))
    tall = min(hidden, key=lambda found: found.model.size[1])
    shown = run(tracker, Scenery(can(0.04, 0.16)))
    assert ids(shown) == [tall.id]
    assert shown[0].model is not tall.model


def test_clear_forgets_and_never_reuses_ids() -> None:
    """After clear the same object gets a new id."""
    tracker = Tracker()
    before = run(tracker, Scenery(mug()))
    tracker.clear()
    assert not tracker.next_jobs(1)
    after = run(tracker, Scenery(mug()))
    assert not set(ids(before)) & set(ids(after))


def test_old_frames_are_let_go() -> None:
    """However many objects come and go, the tracker keeps no frame of those that are done."""
    tracker = Tracker()
    frames = []
    for seed in range(4):
        seen = Scenery(mug(), crate(0.0, -0.25 + 0.15 * seed), seed=seed)
        frames.append(ref(seen.frame))
        run(tracker, seen)
    del seen
    collect()
    assert not any(frame() for frame in frames)


def test_an_object_keeps_the_name_that_its_sightings_are_surest_of() -> None:
    """Neither a frame without a name nor one doubtful other name renames it; many do."""
    tracker = Tracker()
    seen = Scenery(mug())
    sighting, = seen.sightings
    found: list[SceneObject] = []
    for label, score in (('object', 0.9), ('cup', 0.8), ('object', 0.9), ('can', 0.7),
                         ('can', 0.7)):
        detection = replace(sighting.detection, label=label, score=score)
        seen.sightings = [replace(sighting, detection=detection)]
        found += perceive(tracker, seen)
    assert [one.detection.label for one in found] == ['object', 'cup', 'cup', 'cup', 'can']
    assert len({one.id for one in found}) == 1


def test_in_a_stream_an_object_is_shown_when_it_was_seen_three_times() -> None:
    """What noise makes of a frame or two is none; slow frames do not make it wait for ever."""
    for period, shown in ((0.1, [0, 0, 1]), (2.0, [0, 1, 1])):
        tracker = Tracker()
        counts = [len(perceive(tracker, Scenery(mug(), seconds=10.0 + period * number), False))
                  for number in range(3)]
        assert counts == shown
    tracker = Tracker()
    for number in range(12):
        things = [mug(), crate()] if number in (4, 9) else [mug()]
        objects = perceive(tracker, Scenery(*things, seconds=10.0 + 0.3 * number), False)
    assert ids(objects) == [1], 'the crate was seen twice in 1.5 s'


def test_what_detectors_are_not_sure_of_is_not_shown() -> None:
    tracker = Tracker()
    for number in range(5):
        seen = Scenery(mug(), seconds=10.0 + 0.1 * number)
        seen.sightings = [
            replace(one, detection=replace(one.detection, score=0.2)) for one in seen.sightings]
        assert not perceive(tracker, seen, False)


@pytest.mark.parametrize('stamps', ((0.0,) * 8, (5.0, 5.1, 5.2, 5.3, 1.0, 1.1, 0.0, 1.2)))
def test_stamps_that_tell_nothing_or_go_back_lose_no_object(stamps: tuple[float, ...]) -> None:
    """A camera without stamps, and a recording that starts again."""
    tracker = Tracker(forget_after=2.0)
    found = [ids(perceive(tracker, Scenery(mug(), crate(), seconds=stamp), False))
             for stamp in stamps]
    assert found[3:] == [[1, 2]] * 5


def test_objects_stay_put_before_a_camera_that_moves_with_tf() -> None:
    """Around the table by 40 degrees: same ids, and poses in the world as before."""
    tracker, table = Tracker(), np.eye(4)
    for number in range(11):
        angle = np.radians(4.0 * number)
        table[:2, :2] = (np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))
        pose = table @ POSE
        objects = run(tracker, Scenery(mug(), crate(), seed=number, pose=pose, has_tf=True))
        assert ids(objects) == [1, 2]
        places = np.array([(pose @ found.pose)[:3, 3] for found in objects])
        if number == 0:
            first = places
        np.testing.assert_allclose(places, first, atol=0.01)


def test_a_wrong_guess_of_the_far_side_moves_no_object() -> None:
    """Around a crate whose mesh is 12 mm too deep where the first view did not see it."""
    tracker, table, places = Tracker(better_view=100.0), np.eye(4), []
    for number in range(24):
        angle = np.radians(6.0 * number)
        table[:2, :2] = (np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))
        pose = table @ POSE
        seen = Scenery(crate(0.0, 0.0), seed=number, pose=pose, seconds=1.0 + 0.1 * number,
                       has_tf=True)
        perceive(tracker, seen)
        for id, sighting in tracker.next_jobs(1):
            model = mesh_of(sighting)
            model.vertices[model.vertices[:, 0] < -0.04, 0] -= 0.012
            tracker.finish(id, sighting, None if places else model)
        found, = tracker.objects()
        assert found.model.reconstructor == 'mesh'
        places.append((pose @ found.pose)[:3, 3])
    assert np.linalg.norm(places - places[0], axis=1).max() < 0.0003


def test_a_turned_box_is_followed_by_each_of_several_at_once() -> None:
    """Three boxes that turn by 4 degrees a frame, of which one is seen from its corner."""
    tracker, sides = Tracker(better_view=100.0), ((0.0, -0.25), (0.05, 0.0), (-0.05, 0.25))
    for number in range(10):
        things = []
        for index, (x, y) in enumerate(sides):
            turn = np.radians(15.0 * index + 4.0 * max(0, number - 2))
            things.append(box(0.1, 0.15, 0.12).apply_transform(
                trimesh.transformations.rotation_matrix(turn, (0, 0, 1))).apply_translation(
                    (x, y, 0)))
        seen = Scenery(*things, seed=number, seconds=1.0 + 0.1 * number)
        for index, sighting in enumerate(seen.sightings):  # placed as it stands
            turn = np.radians(15.0 * index)
            upright = trimesh.transformations.rotation_matrix(turn, (0, 0, 1))[:3, :3]
            seen.sightings[index] = replace(sighting, placement=replace(
                sighting.placement, rotation=sighting.placement.rotation @ upright,
                size=np.array([0.1, 0.15, 0.12])))
        objects = run(tracker, seen)
        if number == 0:
            first = [found.rotation for found in objects]
    assert ids(objects) == [1, 2, 3]
    for found, before in zip(objects, first):
        turned = np.degrees(np.arccos((np.trace(before.T @ found.rotation) - 1.0) / 2.0))
        assert turned == pytest.approx(28.0, abs=3.0)


def degrees_between(one: np.ndarray, other: np.ndarray) -> float:
    """Return by how much two rotations, (3, 3), differ."""
    return float(np.degrees(np.arccos(min(1.0, (np.trace(one.T @ other) - 1.0) / 2.0))))


def follow_turning_box(width: float, start: float, rests: int, frames: int, seed: int) -> float:
    """Turn a box by 4 degrees a frame after a rest; return how far its mesh is off at most."""
    tracker, size, off = Tracker(better_view=100.0), np.array([width, 0.18, 0.2]), []
    for number in range(frames):
        turn = 4.0 * max(0, number - rests)
        first, turned = (trimesh.transformations.rotation_matrix(np.radians(degrees), (0, 0, 1))
                         for degrees in (start, start + turn))
        seen = Scenery(box(*size).apply_transform(turned), seed=number + seed,
                       seconds=1.0 + 0.1 * number)
        sighting, = seen.sightings
        seen.sightings[0] = replace(sighting, placement=replace(
            sighting.placement, rotation=sighting.placement.rotation @ first[:3, :3], size=size))
        found, = run(tracker, seen)
        if number == 0:
            before = found.rotation
        off.append(abs(degrees_between(before, found.rotation) - turn))
    return max(off)


def test_a_narrow_box_that_turns_is_followed_from_its_first_step() -> None:
    """It is seen end-on, and rests for a while."""
    assert follow_turning_box(0.08, 90.0, rests=6, frames=14, seed=0) < 3.0


@pytest.mark.parametrize('seed', [0, 100])
def test_a_box_that_turns_past_its_narrow_side_goes_on(seed: int) -> None:
    """For some frames little but that side is seen, which hardly tells how it is turned."""
    assert follow_turning_box(0.05, 65.0, rests=4, frames=20, seed=seed) < 2.0


@pytest.mark.parametrize('seed', [0, 200])
def test_sides_that_come_into_view_move_no_object(seed: int) -> None:
    """Around a narrow box: what is seen of its sides at small angles tells nothing of a motion."""
    tracker, places = Tracker(better_view=100.0), []
    for number in range(40):
        pose = trimesh.transformations.rotation_matrix(
            np.radians(6.0 * number), (0, 0, 1)) @ POSE
        found, = run(tracker, Scenery(
            box(0.06, 0.16, 0.2), seed=number + seed, pose=pose, seconds=1.0 + 0.1 * number,
            has_tf=True))
        places.append((pose @ found.pose)[:3, 3])
    assert np.count_nonzero(np.linalg.norm(np.diff(places, axis=0), axis=1) > 1e-6) <= 1


def test_a_can_that_slides_does_not_turn() -> None:
    """Nothing tells the turn about its axis, beside which the origin of its mesh lies."""
    tracker, aside = Tracker(better_view=100.0), np.array([0.006, 0.0, 0.0])
    mesh = can(0.04, 0.11).apply_translation((0.006, 0.0, -0.055))
    for number in range(24):
        along = 0.005 * max(0, number - 4)
        perceive(tracker, Scenery(
            mug(0.0, along - 0.06), seed=number, seconds=1.0 + 0.1 * number))
        for id, sighting in tracker.next_jobs(1):
            model = mesh_of(sighting)
            tracker.finish(id, sighting, replace(
                model, vertices=mesh.vertices.astype(np.float32),
                faces=mesh.faces.astype(np.int32),
                colors=np.zeros((len(mesh.vertices), 3), np.uint8),
                position=model.position - model.rotation @ aside))
        found, = tracker.objects()
        if number == 0:
            first = found.rotation
        assert degrees_between(first, found.rotation) < 3.0, number


def test_an_object_out_of_view_is_remembered() -> None:
    """The camera turns away and back: it is shown where it is, and keeps its id and mesh."""
    tracker = Tracker()
    before = run(tracker, Scenery(mug(), seconds=1.0, has_tf=True))[0]
    away = POSE.copy()
    away[:3, :3] = POSE[:3, :3] @ trimesh.transformations.rotation_matrix(
        1.2, (0, 1, 0))[:3, :3]
    found, = run(tracker, Scenery(mug(), seconds=3.0, pose=away, has_tf=True))
    assert (found.id, found.state) == (before.id, 'out_of_view')
    np.testing.assert_allclose(away @ found.pose, POSE @ before.pose, atol=1e-6)
    again, = run(tracker, Scenery(mug(), seconds=5.0, has_tf=True))
    assert (again.id, again.state) == (before.id, 'visible')
    assert again.model is before.model


def plate() -> trimesh.Trimesh:
    """Return a plate in the air between the camera and the mug."""
    return box(0.01, 0.2, 0.15).apply_translation((0.35, 0, 0.2))


def test_what_floats_before_the_scene_is_no_object_and_hides_some() -> None:
    """Whatever a plate hides is remembered, and seen again under the same id."""
    tracker = Tracker()
    scenes = [[mug(), crate()]] * 4 + [[mug(), crate(), plate()]] * 6 + [[mug(), crate()]] * 2
    states = []
    for number, things in enumerate(scenes):
        objects = perceive(tracker, Scenery(*things, seconds=1.0 + 0.1 * number), False)
        states.append({found.id: found.state for found in objects})
    assert states[3] == states[-1] == {1: 'visible', 2: 'visible'}
    assert all(set(state) == {1, 2} for state in states[4:])
    assert 'hidden' in states[8].values()


def test_what_overhangs_the_thing_that_it_lies_on_is_an_object() -> None:
    """Below its lower edge there is air, as below a hand; alone there, it is none."""
    board = box(0.08, 0.3, 0.03).apply_translation((0, 0, 0.15))
    for things, count in (([box(0.08, 0.08, 0.15), board], 2), ([board], 0)):
        tracker = Tracker()
        for number in range(5):
            objects = perceive(tracker, Scenery(*things, seconds=1.0 + 0.1 * number), False)
        assert len(objects) == count


def test_missing_readings_hide_an_object() -> None:
    tracker = Tracker()
    perceive(tracker, Scenery(mug(), crate()))
    seen = Scenery(mug(), crate())
    hole = seen.frame.depth.copy()
    for one in seen.sightings:
        hole[one.detection.mask] = np.nan
    seen.frame, seen.sightings = replace(seen.frame, depth=hole), []
    assert [found.state for found in perceive(tracker, seen)] == ['hidden', 'hidden']


def test_an_object_put_down_elsewhere_keeps_its_id() -> None:
    """Its size and colour tell; another shape at the place where it was lost is another object."""
    tracker = Tracker()
    before = run(tracker, Scenery(mug(0.0, -0.2), crate()))
    run(tracker, Scenery(crate()))
    after = run(tracker, Scenery(mug(0.1, 0.05), crate()))
    assert ids(after) == ids(before)
    tracker = Tracker()
    before = run(tracker, Scenery(mug(0.0, -0.2), crate()))
    run(tracker, Scenery(crate()))
    after = run(tracker, Scenery(can(0.06, 0.05).apply_translation((0.0, -0.2, 0)), crate()))
    assert len(set(ids(before)) & set(ids(after))) == 1 and len(after) == 2


def located(tracker: Tracker, world: World, pose: np.ndarray | None, name: str) -> Scenery:
    """Return a mug and a crate where a camera at rest is told to be; the tracker goes along."""
    seen = Scenery(mug(), crate())
    frame = replace(seen.frame, world_from_camera=pose, world_id=name)
    found = world.locate(frame)
    if found.new_from_old is not None:
        tracker.move(found.new_from_old)
    seen.frame = found.frame
    seen.sightings = [replace(one, frame=found.frame) for one in seen.sightings]
    return seen


def test_objects_go_along_into_another_world() -> None:
    """The camera rests when TF begins to tell its pose, or tells it in another frame."""
    tracker, world = Tracker(), World()
    turned = trimesh.transformations.rotation_matrix(1.0, (0, 0, 1), (0.3, 0.2, 0.1))
    shown = [run(tracker, located(tracker, world, pose, name))
             for pose, name in ((None, ''), (POSE, 'base'), (turned @ POSE, 'map'))]
    for objects in shown[1:]:
        assert ids(objects) == ids(shown[0])
        for found, old in zip(objects, shown[0]):
            np.testing.assert_allclose(found.pose, old.pose, atol=0.005)
            assert found.model is old.model


def test_a_mesh_that_was_begun_in_another_world_is_where_its_object_is() -> None:
    tracker, world = Tracker(), World()
    perceive(tracker, located(tracker, world, None, ''))
    jobs = tracker.next_jobs(2)
    before = perceive(tracker, located(tracker, world, POSE, 'base'))
    for id, sighting in jobs:
        tracker.finish(id, sighting, mesh_of(sighting))
    for found, old in zip(tracker.objects(), before):
        assert found.model.reconstructor == 'mesh'
        np.testing.assert_allclose(found.pose, old.pose, atol=0.01)


def test_a_mesh_of_which_a_part_was_taken_off_is_made_again() -> None:
    """Readings see through what they once told: the lid is gone."""
    tracker = Tracker()
    before = run(tracker, Scenery(box(0.1, 0.12, 0.12)))
    for number in range(1, 9):
        after = run(tracker, Scenery(box(0.1, 0.12, 0.09), seed=number, seconds=0.1 * number))
    assert ids(after) == ids(before)
    assert after[0].model.size[2] == pytest.approx(0.09, abs=0.006)


def test_a_thing_on_which_another_is_put_keeps_its_id() -> None:
    """Where detection shows both as one it is one, of the size of both."""
    tracker = Tracker()
    below, above = box(0.1, 0.12, 0.07), can(0.03, 0.1).apply_translation((0, 0, 0.07))
    before = run(tracker, Scenery(below))
    for number in range(1, 9):
        both = trimesh.util.concatenate([below, above])
        after = run(tracker, Scenery(both, seed=number, seconds=0.1 * number))
    assert ids(after) == ids(before)
    assert after[0].model.size[2] == pytest.approx(0.17, abs=0.01)


def test_half_a_mask_moves_no_object() -> None:
    """Its other half lies on readings, too."""
    tracker = Tracker()
    before = run(tracker, Scenery(mug()))
    seen = Scenery(mug(), seed=1, seconds=0.1)
    whole, = seen.sightings
    mask, placement = whole.detection.mask.copy(), whole.placement
    rows = np.flatnonzero(mask.any(axis=1))
    mask[:round(rows.mean() - 0.1 * len(rows))] = False
    up = placement.rotation[:, 2]
    seen.sightings = [replace(
        whole, detection=replace(whole.detection, mask=mask, bbox=bbox_of(mask)),
        placement=replace(placement, position=placement.position - 0.02 * up,
                          size=placement.size * (1.0, 1.0, 0.65)))]
    after = run(tracker, seen)
    assert ids(after) == ids(before)
    np.testing.assert_allclose(after[0].position, before[0].position, atol=0.002)


def test_a_view_that_gets_better_and_better_makes_one_mesh() -> None:
    """A mesh is made again when the camera is near, not on the way there."""
    tracker, made = Tracker(), 0
    for number in range(36):
        pose = camera_pose(35, 1.3 - 0.03 * min(number, 20))
        perceive(tracker, Scenery(mug(), seed=number, seconds=0.1 * number, pose=pose,
                                  has_tf=True), is_alone=False)
        for id, sighting in tracker.next_jobs(1):
            tracker.finish(id, sighting, mesh_of(sighting))
            made += 1
    assert made == 2
