# SPDX-License-Identifier: Apache-2.0
"""Options by dotted names, from the command line and from ROS parameter files."""

import pytest

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.settings import describe_options
from img2scene_ros.settings import read_assignments
from img2scene_ros.settings import read_parameter_file


def test_texts_are_read_as_the_options_type():
    pipeline, backends = parse_settings(read_assignments([
        'detector=detr', 'tabletop.min_height=1e-2', 'tabletop.max_detections=7',
        'detr.labels=[cup, wine glass]', 'detr.revision=1.0']))
    assert pipeline.detector == 'detr'
    assert backends['tabletop'].min_height == 0.01
    assert backends['tabletop'].max_detections == 7
    assert backends['detr'].labels == ('cup', 'wine glass')
    assert backends['detr'].revision == '1.0'


@pytest.mark.parametrize('text, sentence', [
    ('tabletop.min_hight=0.01', 'tabletop.min_height'),
    ('nonsense=1', "'nonsense'"),
    ('tabletop.min_height=much', "'min_height'"),
    ('tabletop.min_height=7', "'min_height'"),
    ('tabletop.max_detections=1.5', "'max_detections'"),
    ('detr.dtype=int8', "'dtype'"),
    ('detector', 'NAME=VALUE'),
])
def test_wrong_settings_are_one_sentence(text, sentence):
    with pytest.raises(OptionError) as caught:
        parse_settings(read_assignments([text]))
    assert sentence in str(caught.value)
    assert '\n' not in str(caught.value)


def test_parameter_file_of_the_node_serves_the_command_line(tmp_path):
    path = tmp_path / 'params.yaml'
    path.write_text('''
/**:
  ros__parameters:
    detector: detr
    autostart: true
    tabletop:
      min_height: 0.02
    detr.labels: [cup, bowl]
''')
    pipeline, backends = parse_settings(read_parameter_file(path))
    assert pipeline.detector == 'detr'
    assert backends['tabletop'].min_height == 0.02
    assert backends['detr'].labels == ('cup', 'bowl')


@pytest.mark.parametrize('content, error, sentence', [
    (None, InputError, 'params.yaml'),
    ('a: [', InputError, 'params.yaml'),
    ('detector: detr', InputError, 'ros__parameters'),
    ('- 1', InputError, 'ros__parameters'),
    ('x: {ros__parameters: {tabletop: {min_hight: 0.1}}}', OptionError, 'min_height'),
])
def test_wrong_parameter_files_are_one_sentence(tmp_path, content, error, sentence):
    path = tmp_path / 'params.yaml'
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=sentence) as caught:
        parse_settings(read_parameter_file(path))
    assert '\n' not in str(caught.value)


def test_description_names_every_option_with_its_limits():
    text = describe_options()
    assert 'tabletop.min_height = 0.005  [number from 0.001 to 0.2]' in text
    assert 'detr.dtype = auto  [text auto | float32 | float16 | bfloat16]' in text
    assert 'Least height of a point above the support plane' in text
