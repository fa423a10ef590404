# SPDX-License-Identifier: Apache-2.0
"""Messages that the tests build are the published ones on the wire."""

from importlib import import_module

import pytest
from harness import Robot
from interface_packages import make_importable

pytest.importorskip('moveit_msgs.msg', reason=make_importable())


# ROS's hashes of the types (REP-2011), as the published packages have them in Jazzy.
@pytest.mark.parametrize('package, name, published', [
    ('tf2_msgs', 'TFMessage', 'e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087'),
    ('vision_msgs', 'Detection2DArray',
     '214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'),
    ('vision_msgs', 'Detection3DArray',
     '793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018'),
    ('vision_msgs', 'LabelInfo',
     '3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783'),
    ('moveit_msgs', 'CollisionObject',
     '74b0acd6d56be032bf4f764b2c2633f50588b5fb2bd71e97206c59052747cf7e'),
    ('moveit_msgs', 'PlanningScene',
     '0f58540ad5eab4b9ea827d53b763c793d8cabd202b3b301fcee25afa4ce1bd80'),
])
def test_types_are_the_published_ones(
    robot: Robot, package: str, name: str, published: str,
) -> None:
    kind = getattr(import_module(f'{package}.msg'), name)
    publisher = robot.node.create_publisher(kind, name, 1)
    info, = robot.node.get_publishers_info_by_topic(name)
    assert bytes(info.topic_type_hash.value).hex() == published
    robot.node.destroy_publisher(publisher)
