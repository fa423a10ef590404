# SPDX-License-Identifier: Apache-2.0
"""Options: every value is checked when it is made, and the sentence names the option."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import OptionError
from img2scene_ros.options import Options
from img2scene_ros.options import option


@dataclass(frozen=True)
class Example(Options):
    """One option of each kind."""

    enabled: bool = option(True, 'A switch')
    count: int = option(3, 'A number of things', low=1, high=10)
    distance: float = option(0.5, 'A distance [m]', low=0.0, high=2.0)
    mode: str = option('fast', 'A way to do it', choices=('fast', 'good'))
    path: str = option('', 'Any text', read_only=True)
    labels: tuple[str, ...] = option((), 'Some names')


def test_the_defaults_are_valid():
    assert Example() == Example(True, 3, 0.5, 'fast', '', ())


def test_keeps_what_it_is_given():
    example = Example(False, 10, 2.0, 'good', '/tmp', ('a', 'b'))
    assert dataclasses.astuple(example) == (False, 10, 2.0, 'good', '/tmp', ('a', 'b'))


def test_the_ends_of_a_range_belong_to_it():
    assert Example(count=1, distance=0.0).count == 1
    assert Example(count=10, distance=2.0).count == 10


def test_a_whole_number_is_a_float_where_a_float_is_wanted():
    assert type(Example(distance=1).distance) is float


def test_a_list_of_names_becomes_a_tuple():
    assert Example(labels=['mug', 'bowl']).labels == ('mug', 'bowl')


@pytest.mark.parametrize('values, named', [
    ({'count': 0}, "'count' is 0.*at least 1"),
    ({'count': 11}, "'count' is 11.*at most 10"),
    ({'distance': -0.1}, "'distance' is -0.1.*at least 0.0"),
    ({'distance': float('nan')}, "'distance' takes a number, not nan"),
    ({'distance': float('inf')}, "'distance' takes a number, not inf"),
    ({'mode': 'slow'}, "'mode' is 'slow'.*fast, good"),
])
def test_names_the_option_its_value_and_what_is_allowed(values, named):
    with pytest.raises(OptionError, match=named):
        Example(**values)


@pytest.mark.parametrize('values, named', [
    ({'count': 2.5}, "'count' takes a whole number, not 2.5"),
    ({'count': True}, "'count' takes a whole number, not True"),
    ({'count': '3'}, "'count' takes a whole number, not '3'"),
    ({'enabled': 1}, "'enabled' takes true or false, not 1"),
    ({'distance': '0.5'}, "'distance' takes a number, not '0.5'"),
    ({'distance': False}, "'distance' takes a number, not False"),
    ({'mode': None}, "'mode' takes a text, not None"),
    ({'labels': 'mug'}, "'labels' takes a list of texts, not 'mug'"),
    ({'labels': ('mug', 3)}, "'labels' takes a list of texts, not .*3"),
])
def test_names_the_option_and_the_type_it_takes(values, named):
    with pytest.raises(OptionError, match=named):
        Example(**values)


def test_a_changed_copy_is_checked_too():
    assert dataclasses.replace(Example(), count=5).count == 5
    with pytest.raises(OptionError, match='count'):
        dataclasses.replace(Example(), count=500)


def test_a_value_without_a_range_may_be_any_finite_number():
    @dataclass(frozen=True)
    class Free(Options):
        offset: float = option(0.0, 'Any distance [m]')

    assert Free(offset=-1e6).offset == -1e6
    for value in (float('nan'), float('-inf'), np.inf):
        with pytest.raises(OptionError, match='offset'):
            Free(offset=value)


def test_options_do_not_change_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example().count = 5


def test_a_declaration_tells_what_nodes_and_documentation_need():
    declared = {field.name: field for field in dataclasses.fields(Example)}
    assert declared['distance'].default == 0.5
    assert declared['distance'].metadata == {
        'description': 'A distance [m]', 'low': 0.0, 'high': 2.0, 'choices': (), 'group': '',
        'read_only': False}
    assert declared['path'].metadata['read_only']


def test_users_may_catch_all_errors_at_once():
    with pytest.raises(Img2SceneError):
        Example(count=0)
