# SPDX-License-Identifier: Apache-2.0
"""Depth cameras, wrong masks and light against closed forms and second methods."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from synthetic import GEOMETRIC
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame
from torch._subclasses.fake_tensor import FakeTensorMode

from img2scene_ros.camera import Camera
from img2scene_ros.learning import sensors
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.types import Frame

STRUCTURED, STEREO, TOF = range(3)
FOCAL = 600.0


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walls(*distances: float) -> torch.Tensor:
    return torch.tensor(distances)[:, None, None].expand(-1, 240, 320).clone()


def plates(count: int) -> torch.Tensor:
    """Return plates at 0.8 m, columns 100 to 199, before a wall at 2 m, nothing in the corner."""
    depth = walls(*[2.0] * count)
    depth[:, 60:180, 100:200] = 0.8
    depth[:, :20, :20] = torch.nan
    return depth


def read(depth: torch.Tensor, kind: int | None, seed: int = 0, grey: int = 128, **more: float):
    stripes = grey - 4 * torch.randint(2, (320,), generator=chance())  # a bit of texture
    color = stripes.byte().expand(len(depth), 3, 240, -1)
    kinds = None if kind is None else torch.full((len(depth),), kind)
    more = {name: torch.full((len(depth),), value) for name, value in more.items()}
    focal = torch.full((len(depth),), FOCAL)
    return sensors.sensed_depth(depth, color, focal, chance(seed), kinds, **more)


def test_the_seed_decides_and_nothing_waits_for_the_device():
    one, same, other = (read(plates(6), None, seed) for seed in (3, 3, 4))
    assert torch.equal(one.nan_to_num(), same.nan_to_num())
    assert (one.nan_to_num() != other.nan_to_num()).float().mean() > 0.5
    with FakeTensorMode():  # has no values, so whatever needs one on the CPU fails
        assert read(plates(6), None).shape == (6, 240, 320)
        masks = torch.ones(4, 48, 64, dtype=torch.bool)
        assert sensors.wrong_masks(masks, chance(), 3, 0.3).shape == masks.shape
        color = torch.ones(4, 3, 48, 64, dtype=torch.uint8)
        assert sensors.light_changed(color, chance()).shape == color.shape


@pytest.mark.parametrize('kind', range(3))
def test_strength_zero_is_the_truth_and_nothing_stays_nothing(kind):
    depth = plates(2)
    exact = read(depth, kind, strength=0.0, magnification=3.0)
    assert torch.equal(exact.nan_to_num(), depth.nan_to_num())
    noisy = read(depth, kind)
    assert noisy.dtype == torch.float32 and noisy[depth.isnan()].isnan().all()
    assert 0.002 < noisy[~depth.isnan()].isnan().float().mean() < 0.3


@pytest.mark.parametrize('magnification', (0.5, 1.0, 3.0))
@pytest.mark.parametrize(('kind', 'law'), (
    (STRUCTURED, lambda z, f: 0.0012 + 0.0019 * (z - 0.4) ** 2),  # Nguyen et al. 2012
    (STEREO, lambda z, f: 0.08 * z ** 2 / (f * 0.05)),
    (TOF, lambda z, f: 0.001 + 0.001 * z * np.sqrt(128 / 32))))
def test_errors_on_a_wall_have_the_stated_standard_deviation(kind, law, magnification):
    for z in (0.6, 1.3):
        depth = walls(*np.linspace(0.97 * z, 1.03 * z, 6).tolist())  # many phases of the rounding
        error = read(depth, kind, grey=34, magnification=magnification) - depth
        std = error[~error.isnan()].std()
        assert std == pytest.approx(law(z, FOCAL / magnification), rel=0.06)


def test_readings_of_a_magnified_sensor_are_repeated_in_blocks():
    depth = read(walls(1.0), TOF, magnification=4.0)[0].numpy()
    changes = np.flatnonzero(np.any(np.diff(depth[:, 8:-8]) != 0, axis=0))
    assert set(np.diff(changes)) == {4}


def test_errors_of_stereo_correlate_between_neighbours():
    for kind, expected in ((STRUCTURED, 0.0), (STEREO, np.exp(-(3 / 4) ** 2)), (TOF, 0.0)):
        error = read(walls(*[1.0] * 4), kind)[:, 60:180] - 1
        one, other = error[..., 3:], error[..., :-3]
        both = ~(one.isnan() | other.isnan())
        together = torch.corrcoef(torch.stack([one[both], other[both]]))[0, 1]
        assert together == pytest.approx(expected, abs=0.03), sensors.KINDS[kind]


def test_matching_smooths_low_steps_of_the_disparity_and_keeps_high_ones():
    depth = walls(1.0)
    depth[:, :, 100:], depth[:, :, 200:] = 0.9, 0.5
    disparity, across, reach = (
        torch.tensor(value)[None, None, None] for value in (30.0, 8.0, 3.0))
    smooth = sensors.smoothed(depth, disparity, across, reach)[0, 120]
    columns = torch.arange(90, 110)
    ramp = 0.5 + 0.5 * torch.erf((columns - 99.5) / (3.0 * 2 ** 0.5))
    expected = 1.0 / (1.0 + (1.0 / 0.9 - 1.0) * ramp)
    torch.testing.assert_close(smooth[90:110], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(smooth[180:], depth[0, 120, 180:], atol=1e-6, rtol=0)
    plane = 1.0 / (1.0 + 0.002 * torch.arange(320.0)).expand(1, 240, -1)
    same = sensors.smoothed(plane, disparity, across, reach)
    torch.testing.assert_close(same[..., 20:-20], plane[..., 20:-20], atol=1e-5, rtol=0)


def shadow_by_pixel(depth: np.ndarray, shift: float) -> np.ndarray:
    """Tell of each pixel whether one to its right is seen further to the left."""
    place = np.arange(depth.shape[1]) - shift / depth
    return np.array([[(row[u + 1:] < row[u] - 1e-3).any() for u in range(len(row))]
                     for row in place])


def test_shadow_is_where_geometry_says():
    depth, baseline = plates(2), torch.tensor([0.05, -0.05])[:, None, None]
    hidden = sensors.shadow(depth, torch.tensor(FOCAL), baseline).numpy()
    width = FOCAL * 0.05 * (1 / 0.8 - 1 / 2.0)
    assert hidden[0, 120, :100].sum() == hidden[0, 120].sum() == pytest.approx(width, abs=1)
    assert hidden[1, 120, 200:].sum() == hidden[1, 120].sum() == pytest.approx(width, abs=1)
    random = np.random.default_rng(0)
    rough = ndimage.zoom(random.uniform(0.5, 3, (1, 12, 16)), (1, 20, 20)).astype(np.float32)
    ours = sensors.shadow(torch.tensor(rough), torch.tensor(FOCAL), baseline[:1])[0].numpy()
    expected = shadow_by_pixel(rough[0].astype(float), FOCAL * 0.05)
    assert (ours != expected).mean() < 1e-3 < ours.mean()
    for kind, width in ((STRUCTURED, 33), (STEREO, 22), (TOF, 0)):
        lost = read(plates(2), kind)[:, 80:160].isnan().float().mean(dim=1)
        left, right = lost[:, 60:98].sum(dim=1), lost[:, 202:240].sum(dim=1)
        assert torch.maximum(left, right) == pytest.approx([width] * 2, abs=4)


def test_edges_are_beside_jumps_and_not_on_slopes():
    at_edge = sensors.edges(plates(1))[0].numpy()
    assert at_edge[21:].sum() == pytest.approx(2 * 2 * (100 + 120), rel=0.05)
    assert at_edge[61:179, [99, 100, 199, 200]].all() and at_edge[19:21, 1:19].all()
    slope = 1 / torch.linspace(0.3, 2.0, 320).expand(1, 240, -1)
    assert not sensors.edges(slope)[..., 1:-1].any()


def test_surfaces_seen_too_flat_are_lost():
    rays = Camera(320, 240, FOCAL, FOCAL, 159.5, 119.5).rays
    for degrees, share in ((60, 0.0), (84, 1.0)):
        normal = np.array([np.sin(np.radians(degrees)), 0, np.cos(np.radians(degrees))])
        depth = torch.tensor(1.5 * normal[2] / (rays @ normal), dtype=torch.float32)
        depth = torch.where(depth > 0, depth, torch.nan)[None]
        flat = sensors.grazing(depth, torch.tensor(FOCAL), torch.tensor(12.0))
        assert flat[0, 110:130, 150:170].float().mean() == share


@pytest.mark.parametrize('magnification', (0.5, 1.0, 2.0))
@pytest.mark.parametrize(('kind', 'unit'), ((STRUCTURED, 0.075 * 8), (STEREO, 0.05 * 32)))
def test_disparities_are_multiples_of_the_step(kind, unit, magnification):
    depth = read(walls(0.5, 1.0, 2.0), kind, magnification=magnification)
    steps = FOCAL / magnification * unit / depth[~depth.isnan()]
    assert (steps - steps.round()).abs().max() < 1e-3


@pytest.mark.parametrize(('kind', 'share'), enumerate(sensors.EDGE_HOLES))
def test_edges_lose_readings(kind, share):
    depth = plates(8)
    lost, beside = read(depth, kind)[:, 80:160].isnan(), torch.zeros(320, dtype=torch.bool)
    beside[[100, 199]] = True  # of the plate, which has no shadow
    assert lost[..., beside].float().mean() == pytest.approx(share, abs=0.08)
    assert lost[..., 110:190].float().mean() < 0.05


def test_time_of_flight_reads_between_things():
    between = [((depth > 0.9) & (depth < 1.8)).float().mean(dim=0)[80:160]
               for depth in (read(plates(8), STRUCTURED), read(plates(8), TOF))]
    assert not between[0].any()
    assert between[1][:, 98:102].mean() > 0.05 and not between[1][:, 110:190].any()


@pytest.mark.parametrize('kind', range(3))
def test_dark_and_shiny_patches_are_mostly_lost(kind):
    lost = [read(walls(*[1.0] * 6), kind, grey=grey).isnan().float().mean()
            for grey in (5, 255, 120)]
    assert lost[:2] == pytest.approx([sensors.PATCHES] * 2, abs=0.1) and lost[2] < 0.1


def test_masks_are_wrong_by_some_pixels():
    disk = np.hypot(*np.mgrid[-30:30, -40:40]) < 18
    masks = torch.tensor(np.stack([disk] * 60))
    masks[0] = False
    masks[1] = False
    masks[1, 30, 40] = True  # would vanish
    changed = sensors.wrong_masks(masks, chance(), 3, 0.3)
    assert not changed[0].any() and changed[1].any()
    differ = (changed != masks)[2:].numpy()
    inside, outside = ndimage.distance_transform_edt(disk), ndimage.distance_transform_edt(~disk)
    assert max(np.maximum(inside, outside)[one].max(initial=0) for one in differ) <= 3
    areas = changed[2:].sum(dim=(1, 2)).numpy()
    exact = [np.sum(inside > radius) for radius in range(4)] + [
        np.sum(outside <= radius) for radius in range(1, 4)]
    assert set(exact) <= set(areas), 'every size occurs'
    assert 0.1 < np.mean(~np.isin(areas, exact)) < 0.6, 'some edges are ragged'


def test_light_changes_each_picture_its_own_way():
    color = torch.randint(40, 200, (1, 3, 60, 80), dtype=torch.uint8, generator=chance())
    color = color.expand(32, -1, -1, -1)
    assert torch.equal(sensors.light_changed(color, chance(), 0.0), color)
    mild, strong = (sensors.light_changed(color, chance(1), strength) for strength in (0.3, 1.0))
    assert torch.equal(mild, sensors.light_changed(color, chance(1), 0.3))
    off = [(one.float() - color).abs().mean() for one in (mild, strong)]
    assert 1 < off[0] < off[1] < 60
    assert len(strong.float().mean(dim=(1, 2, 3)).unique()) == 32


def test_one_image_is_read_as_those_of_a_batch():
    camera, depth = Camera(320, 240, FOCAL, FOCAL, 159.5, 119.5), plates(1)[0].numpy()

    def one(seed: int, **how) -> np.ndarray:
        return sensors.read_depth(depth, camera, np.random.default_rng(seed), **how)

    np.testing.assert_array_equal(one(3), one(3))
    assert (np.nan_to_num(one(3)) != np.nan_to_num(one(4))).mean() > 0.5
    np.testing.assert_array_equal(one(0, strength=0.0), depth)
    # The errors that all readings share are gone where the camera is calibrated.
    means = np.array([[np.nanmedian(one(seed, is_calibrated=how)[80:160, 220:]) - 2.0
                       for seed in range(60)] for how in (False, True)])
    assert means[0].std() == pytest.approx(np.hypot(0.02, 0.003), rel=0.3)
    assert np.abs(means[1]).max() < 0.005


@pytest.mark.parametrize('seed', range(3))
def test_a_can_on_a_table_is_still_found_and_rebuilt(seed):
    frame, truth = tabletop_frame([can(0.035, 0.11)], camera_pose(35, 0.8), seed=None)
    depth = sensors.read_depth(
        frame.depth, frame.camera, np.random.default_rng(seed), frame.color)
    around = ndimage.binary_dilation(truth == 1, iterations=15) & np.isfinite(frame.depth)
    assert 0.01 < np.isnan(depth[around]).mean() < 0.3
    scene = Pipeline(*parse_settings(GEOMETRIC)).run(Frame(frame.color, frame.camera, depth))
    found = [item for item in scene.objects if (item.detection.mask & (truth == 1)).sum()
             > 0.5 * (item.detection.mask | (truth == 1)).sum()]
    assert len(found) == 1
    assert found[0].model is not None and found[0].model.reconstructor == 'depth_shell'
    np.testing.assert_allclose(found[0].model.size, (0.07, 0.07, 0.11), rtol=0.2)
