# SPDX-License-Identifier: Apache-2.0
"""Scenes as messages of vision_msgs; imported only where that package is there."""

from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D
from vision_msgs.msg import BoundingBox3D
from vision_msgs.msg import Detection2D
from vision_msgs.msg import Detection2DArray
from vision_msgs.msg import Detection3D
from vision_msgs.msg import Detection3DArray
from vision_msgs.msg import LabelInfo
from vision_msgs.msg import ObjectHypothesis
from vision_msgs.msg import ObjectHypothesisWithPose
from vision_msgs.msg import VisionClass

from img2scene_ros.nodes.messages import pose_from_matrix
from img2scene_ros.nodes.published import published_frame
from img2scene_ros.types import Detection
from img2scene_ros.types import Scene


def objects_message(scene: Scene) -> Detection3DArray:
    """Make the message of all objects: names, poses with covariance, boxes along their axes."""
    frame = published_frame(scene.frame)
    message = Detection3DArray(header=frame.header)
    for item in scene.objects:
        matrix = frame.pose(item)
        pose = pose_from_matrix(matrix[:3, 3], matrix[:3, :3])
        box = BoundingBox3D(center=pose)
        box.size.x, box.size.y, box.size.z = item.model.size.astype(float).tolist()
        results = _hypotheses(item.detection)
        for result in results:
            result.pose.pose = pose
            result.pose.covariance = frame.covariance(item).ravel()
        message.detections.append(
            Detection3D(header=frame.header, results=results, bbox=box, id=str(item.id)))
    return message


def detections_message(header: Header, detections: dict[str, Detection]) -> Detection2DArray:
    """
    Make the message of what a picture shows.

    :param header: the picture's
    :param detections: by id, '' where there is none
    """
    message = Detection2DArray(header=header)
    for name, detection in detections.items():
        xmin, ymin, xmax, ymax = detection.bbox.astype(float).tolist()
        box = BoundingBox2D(size_x=xmax - xmin, size_y=ymax - ymin)
        box.center.position.x, box.center.position.y = (xmin + xmax) / 2.0, (ymin + ymax) / 2.0
        message.detections.append(Detection2D(
            header=header, results=_hypotheses(detection), bbox=box, id=name))
    return message


def label_info(header: Header, names: dict[int, str]) -> LabelInfo:
    """Make the message that tells the name of every pixel value of `~/labels`."""
    return LabelInfo(header=header, class_map=[
        VisionClass(class_id=value, class_name=name) for value, name in names.items()])


def _hypotheses(detection: Detection) -> list[ObjectHypothesisWithPose]:
    names = detection.hypotheses or ((detection.label, detection.score),)
    return [ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(
        class_id=label, score=float(score))) for label, score in names]
