# SPDX-License-Identifier: Apache-2.0
"""Places by how large things usually are, against solids of known size at known places."""

from pathlib import Path

import numpy as np
import pytest
from pinhole import FRAME
from pinhole import cylinder
from pinhole import floor
from pinhole import in_camera
from pinhole import seen

from img2scene_ros.errors import InputError
from img2scene_ros.localization.class_sizes import usual_sizes
from img2scene_ros.localization.size_prior import SizePriorDistance
from img2scene_ros.localization.size_prior import SizePriorOptions

BOTTLE = '{height: [0.24, 0.1], width: [0.08, 0.1]}'


@pytest.fixture
def source(tmp_path: Path) -> SizePriorDistance:
    """Return a source that knows how large this test's bottles are."""
    (tmp_path / 'sizes.yaml').write_text(f'bottle: {BOTTLE}\n')
    return SizePriorDistance(SizePriorOptions(file=str(tmp_path / 'sizes.yaml')))


@pytest.mark.parametrize('tilt, x, y', [(0, 0.0, 2.2), (10, -0.6, 3.0), (50, 0.0, 0.6)])
def test_a_bottle_of_usual_size_is_as_far_as_it_looks(
    source: SizePriorDistance, tilt: float, x: float, y: float,
) -> None:
    """With known tilt a box tells the distance of a thing of known size, also seen from above."""
    detection = seen(in_camera(cylinder(x, y, 0.08, 0.24), tilt), 'bottle')
    found = source.place(FRAME, detection, floor(tilt))
    center = in_camera([x, y, 0.12], tilt)
    assert found.position == pytest.approx(center, abs=0.02 * np.linalg.norm(center))
    assert found.size == pytest.approx((0.08, 0.08, 0.24), rel=0.05)
    assert found.depth_source == 'size_prior'


@pytest.mark.parametrize('x', (0.0, 0.52))
def test_what_the_border_cuts_above_its_foot_stands_on_the_plane(
    source: SizePriorDistance, x: float,
) -> None:
    """Half a bottle, whose foot lies beyond the picture; the second is cut at its side, too."""
    whole = cylinder(x, 0.58, 0.08, 0.24)
    detection = seen(in_camera(whole, 30), 'bottle')
    assert detection.bbox[3] == 480 and (detection.bbox[2] == 640) == (x > 0)
    found = source.place(FRAME, detection, floor(30))
    middle = in_camera([x, 0.58, 0.12], 30)
    assert np.linalg.norm(found.position) == pytest.approx(np.linalg.norm(middle), rel=0.06)
    assert found.support.offset == floor(30).offset


@pytest.mark.parametrize('tilt, y', [(5, 2.2), (25, 1.3), (50, 0.7)])
def test_an_unknown_tilt_makes_it_less_sure(
    source: SizePriorDistance, tilt: float, y: float,
) -> None:
    """Without a plane the distance is still right to within what it says."""
    detection = seen(in_camera(cylinder(0, y, 0.08, 0.24), tilt), 'bottle')
    known = source.place(FRAME, detection, floor(tilt))
    unknown = source.place(FRAME, detection, None)
    true = np.linalg.norm(in_camera([0, y, 0.12], tilt))
    std = np.linalg.norm(unknown.position_std)
    assert abs(np.linalg.norm(unknown.position) - true) < 2.0 * std
    assert std > np.linalg.norm(known.position_std)


def test_errors_are_as_large_as_stated(source: SizePriorDistance) -> None:
    """With sizes that vary as the file says, error over std is about 1."""
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(60):
        tilt, y = rng.uniform(0, 40), rng.uniform(1.0, 1.4)
        width, height = (0.08, 0.24) * np.exp(0.1 * rng.normal(size=2))
        detection = seen(in_camera(cylinder(0, y, width, height), tilt), 'bottle')
        found = source.place(FRAME, detection, floor(tilt))
        true = np.linalg.norm(in_camera([0, y, height / 2], tilt))
        ratios.append((np.linalg.norm(found.position) - true)
                      / np.linalg.norm(found.position_std))
    assert 0.6 < np.sqrt(np.mean(np.square(ratios))) < 1.4


def test_a_cut_box_is_less_sure_or_no_answer(source: SizePriorDistance) -> None:
    """One side that is seen whole still tells the distance, where no plane is known."""
    def bottle(x: float, y: float, tilt: float) -> np.ndarray:
        return in_camera(cylinder(x, y, 0.08, 0.24), tilt)

    whole = source.place(FRAME, seen(bottle(0, 0.7, 30), 'bottle'), None)
    low = seen(bottle(0, 0.7, 9), 'bottle')
    assert low.bbox[3] == 480
    cut = source.place(FRAME, low, None)
    true = np.linalg.norm(in_camera([0, 0.7, 0.12], 9))
    std = np.linalg.norm(cut.position_std)
    assert abs(np.linalg.norm(cut.position) - true) < 2.5 * std
    assert std > 1.2 * np.linalg.norm(whole.position_std)
    corner = seen(bottle(-0.43, 0.7, 9), 'bottle')
    assert corner.bbox[0] == 0 and corner.bbox[3] == 480
    assert source.place(FRAME, corner, None) is None


def test_a_class_without_size_is_no_answer(source: SizePriorDistance) -> None:
    """'object' may be anything."""
    detection = seen(in_camera(cylinder(0, 1, 0.08, 0.24), 10), 'object')
    assert source.place(FRAME, detection, floor(10)) is None


def test_own_sizes_come_before_those_of_the_package(tmp_path: Path) -> None:
    """A class of the file is taken from it, all others stay."""
    (tmp_path / 'own.yaml').write_text('cup: {height: [0.18, 0.1], width: [0.2, 0.1]}')
    cup = seen(in_camera(cylinder(0, 1, 0.1, 0.09), 20), 'cup')
    usual, own = (
        SizePriorDistance(SizePriorOptions(file=file)).place(FRAME, cup, floor(20))
        for file in ('', str(tmp_path / 'own.yaml')))
    assert np.linalg.norm(own.position) == pytest.approx(
        2 * np.linalg.norm(usual.position), rel=0.15)
    chair = seen(in_camera(cylinder(0, 2, 0.5, 0.9), 20), 'chair')
    assert SizePriorDistance(SizePriorOptions(file=str(tmp_path / 'own.yaml'))).place(
        FRAME, chair, floor(20))


@pytest.mark.parametrize('text, words', [
    ('bottle: {height: [0.24, 0.1]}', "'bottle' in .*own.yaml' must be"),
    ('bottle: {height: 0.24, width: [0.1, 0.1]}', "'bottle' in .*own.yaml' must be"),
    ('bottle: {height: [tall, 0.1], width: [0.1, 0.1]}', "'bottle' in .* must be"),
    ('bottle: {height: [-0.2, 0.1], width: [0.1, 0.1]}', "'bottle' in .* not positive"),
    ('- bottle', 'must hold lines like'),
    ('bottle: {', 'is not YAML'),
])
def test_a_bad_file_is_one_clear_sentence(text: str, words: str, tmp_path: Path) -> None:
    """The file, the entry and what it should be are said."""
    (tmp_path / 'own.yaml').write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        SizePriorDistance(SizePriorOptions(file=str(tmp_path / 'own.yaml')))
    assert '\n' not in str(caught.value)


def test_a_missing_file_is_named() -> None:
    """The path is said."""
    with pytest.raises(InputError, match="'/no/such.yaml': No such file"):
        SizePriorDistance(SizePriorOptions(file='/no/such.yaml'))


def test_the_sizes_of_the_package_are_plausible() -> None:
    """Household classes are there, and bounded by what fits into a street."""
    sizes = usual_sizes()
    assert {'bottle', 'wine glass', 'cup', 'bowl', 'plate', 'can', 'box', 'book', 'chair', 'couch',
            'bed', 'dining table', 'desk', 'bookcase', 'wardrobe', 'person', 'tv'} <= set(sizes)
    for size in sizes.values():
        assert 0.01 < size.height < 5 and 0.03 < size.width < 7
        assert 0.08 < size.height_spread < 0.8 and 0.08 < size.width_spread < 0.8
    assert sizes['cup'].height < sizes['bottle'].height < sizes['chair'].height
