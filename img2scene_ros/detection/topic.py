# SPDX-License-Identifier: Apache-2.0
"""Detection by another program, whose results come with the frame."""

from dataclasses import dataclass

from img2scene_ros.errors import InputError
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame


@dataclass(frozen=True)
class TopicOptions(Options):
    """Which of the other program's detections count."""

    score_threshold: float = option(0.0, 'Least score of a detection', low=0.0, high=1.0)
    labels: tuple[str, ...] = option((), 'Class names to keep; empty keeps all')


class TopicDetector:
    """Takes what the frame holds: `scene_node` puts there what comes on its topic `detections`."""

    Options = TopicOptions

    def __init__(self, options: TopicOptions = TopicOptions()) -> None:
        self.options = options

    def detect(self, frame: Frame) -> list[Detection]:
        """
        Return the detections that came with the frame.

        :raises InputError: none came
        """
        if frame.detections is None:
            raise InputError(
                "the detector 'topic' takes what others publish to scene_node; here choose "
                'another detector, such as auto')
        names = self.options.labels
        return [one for one in frame.detections if one.score >= self.options.score_threshold
                and (not names or one.label in names)]


BACKEND = TopicDetector
