# SPDX-License-Identifier: Apache-2.0
"""Pictures find their depth images, whatever the order, the delay, and the clock."""

from time import monotonic
from time import sleep
from types import SimpleNamespace

import pytest

from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.pairing import Pairing


def taken(pairing: Pairing) -> tuple | None:
    """Return what waits in the slot without waiting for it."""
    pair = pairing.take(0.0)
    return pair and (pair.color, pair.depth)


def test_pairs_equal_stamps_in_either_order() -> None:
    pairing = Pairing(0.01)
    pairing.add_color(1.0, 'color 1', ('depth',))
    assert taken(pairing) is None
    pairing.add('depth', 1.0, 'depth 1')
    assert taken(pairing) == ('color 1', 'depth 1')
    pairing.add('depth', 2.0, 'depth 2')
    assert taken(pairing) is None
    pairing.add_color(2.0, 'color 2', ('depth',))
    assert taken(pairing) == ('color 2', 'depth 2')
    assert taken(pairing) is None


def test_pairs_nearest_stamps_within_tolerance() -> None:
    pairing = Pairing(0.02)
    pairing.add('depth', 0.975, 'too early')
    pairing.add('depth', 0.985, 'near')
    pairing.add('depth', 1.005, 'nearest')
    pairing.add('depth', 1.025, 'too late')
    pairing.add_color(1.0, 'color', ('depth',))
    assert taken(pairing) == ('color', 'nearest')


def test_does_not_pair_beyond_tolerance() -> None:
    pairing = Pairing(0.02)
    for i in range(5):
        pairing.add_color(i * 0.1, i, ('depth',))
        pairing.add('depth', i * 0.1 + 0.05, i)
        sleep(0.01)
    assert taken(pairing) is None
    assert 0.04 <= pairing.unpaired_for < 20.0, 'between the first picture and the last'
    pairing.add('depth', 0.39, 'a depth image')
    assert pairing.unpaired_for == 0.0


def test_depth_may_come_some_pictures_late() -> None:
    pairing = Pairing(0.01)
    pairs = []
    for i in range(60):
        pairing.add_color(i / 30, f'color {i}', ('depth',))
        if i >= 40:
            pairing.add('depth', (i - 40) / 30, f'depth {i - 40}')
        pairs.append(taken(pairing))
    assert pairs[40:] == [(f'color {i}', f'depth {i}') for i in range(20)]


def test_color_may_come_some_depth_images_late() -> None:
    pairing = Pairing(0.01)
    for i in range(5):
        pairing.add('depth', i / 30, f'depth {i}')
    pairing.add_color(1 / 30, 'color 1', ('depth',))
    assert taken(pairing) == ('color 1', 'depth 1')
    pairing.add_color(4 / 30, 'color 4', ('depth',))
    assert taken(pairing) == ('color 4', 'depth 4')


def test_keeps_only_the_newest_pair_and_counts_the_others() -> None:
    pairing = Pairing(0.01)
    for i in range(3):
        pairing.add_color(float(i), f'color {i}', ('depth',))
        pairing.add('depth', float(i), f'depth {i}')
    assert taken(pairing) == ('color 2', 'depth 2')
    assert pairing.dropped['busy with an earlier picture'] == 2


def test_pairs_wait_until_they_are_ready() -> None:
    """The newest that is ready is taken, and what has come before it is dropped."""
    pairing, known = Pairing(), []
    pairing.is_ready = lambda pair: pair.color in known
    pictures = [SimpleNamespace(data=bytes([i])) for i in range(4)]
    for i, picture in enumerate(pictures):
        pairing.add_color(float(i), picture, ())
        assert taken(pairing) is None
    known += pictures[1:3]
    assert pairing.take(0.0).color is pictures[2]
    assert pairing.dropped == {'busy with an earlier picture': 2}
    known += pictures[3:]
    assert pairing.take(0.0).color is pictures[3]


def test_a_pair_that_becomes_ready_is_taken_soon() -> None:
    pairing, ready_at = Pairing(), monotonic() + 0.2
    pairing.is_ready = lambda _: monotonic() > ready_at
    pairing.add_color(1.0, SimpleNamespace(data=b''), ())
    assert pairing.take(20.0)
    assert monotonic() - ready_at < 10.0


@pytest.mark.parametrize('size, kept', [(10, 60), (100_000_000, 2)])
def test_what_waits_is_bounded_by_number_and_size(size: int, kept: int) -> None:
    pairing = Pairing()
    pairing.is_ready = lambda _: False
    picture = SimpleNamespace(data=memoryview(bytes(size)))
    for i in range(70):
        pairing.add_color(float(i), picture, ())
    assert pairing.dropped == {'too many wait for TF': 70 - kept}
    pairing.is_ready = lambda _: True
    assert taken(pairing) == (picture, None)


def test_stamps_that_jump_back_go_on_at_once() -> None:
    pairing = Pairing(0.01)
    pairing.add('depth', 100.0, 'old depth')
    for i in range(3):
        pairing.add_color(100.5 + i, 'old color', ('depth',))
    pairing.add_color(1.0, 'new color', ('depth',))
    pairing.add('depth', 1.0, 'new depth')
    assert taken(pairing) == ('new color', 'new depth')


def test_memory_is_bounded_and_losses_are_counted() -> None:
    pairing = Pairing(0.01)
    for i in range(1000):
        pairing.add_color(float(i), bytearray(1), ('depth',))
    assert pairing.dropped['no depth image or mask fits'] == 940
    pairing.add('depth', 5.0, 'the partner of one that is gone')
    assert taken(pairing) is None


def test_works_on_color_alone() -> None:
    pairing = Pairing(0.01)
    pairing.add_color(1.0, 'color', ())
    pair = pairing.take(0.0)
    assert pair == Pair('color', None, pair.arrived)


def test_waits_for_the_mask_too() -> None:
    pairing = Pairing(0.01)
    pairing.add_color(1.0, 'color', ('depth', 'mask'))
    pairing.add('depth', 1.0, 'depth')
    assert taken(pairing) is None
    pairing.add('mask', 1.005, 'mask')
    pair = pairing.take(0.0)
    assert pair == Pair('color', 'depth', pair.arrived, 'mask')
    pairing.add_color(2.0, 'later color', ('depth', 'mask'))
    pairing.add('depth', 2.0, 'later depth')
    pairing.wait_only_for(('depth',))
    assert taken(pairing) == ('later color', 'later depth')


def test_the_newest_waiting_picture_is_released() -> None:
    pairing = Pairing(0.01)
    pairing.wait_only_for(())
    assert taken(pairing) is None
    pairing.add_color(1.0, 'color 1', ('depth',))
    pairing.add_color(2.0, 'color 2', ('depth',))
    pairing.wait_only_for(())
    assert taken(pairing) == ('color 2', None)
    assert pairing.dropped['no depth image or mask fits'] == 1
    pairing.wait_only_for(())
    assert taken(pairing) is None


def test_clear_forgets_messages() -> None:
    pairing = Pairing(0.01)
    pairing.add_color(1.0, 'color', ())
    pairing.add('depth', 2.0, 'depth')
    pairing.clear()
    assert taken(pairing) is None
    pairing.add_color(2.0, 'color', ('depth',))
    assert taken(pairing) is None
