# SPDX-License-Identifier: Apache-2.0
"""
What the stages hand on to each other: frames, planes, objects and the scene.

Frozen dataclasses of numpy arrays, in SI units and optical axes (x right, y down, z forward)
unless they say otherwise. Nothing in here imports a stage.
"""

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
from math import isqrt

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.camera import box_edges
from img2scene_ros.depth import DepthNoise
from img2scene_ros.depth import measured
from img2scene_ros.errors import InputError

UNNAMED = 'object'  # the label from detectors that know no classes


@dataclass(frozen=True, eq=False)
class SupportPlane:
    """
    A horizontal plane in the optical frame: normal . p + offset = height above it.

    - normal: (3,) unit length, pointing up
    - offset: metres
    - hull: (K, 3) metres, corners of the convex outline of the part that the depth image shows;
      None for a plane that is known from elsewhere and goes on without end
    - angle_std, height_std: radians and share of the offset, standard deviations of a plane that
      was estimated; None where its source is as sure as such sources are
    """

    normal: np.ndarray
    offset: float
    hull: np.ndarray | None = None
    angle_std: float | None = None
    height_std: float | None = None

    def moved(self, pose: np.ndarray) -> 'SupportPlane':
        """Return the plane in axes that a pose, (4, 4), takes points to."""
        normal = pose[:3, :3] @ self.normal
        return replace(
            self, normal=normal, offset=float(self.offset - normal @ pose[:3, 3]),
            hull=None if self.hull is None else self.hull @ pose[:3, :3].T + pose[:3, 3])

    def height(self, points: np.ndarray) -> np.ndarray:
        """Return how far points lie above the plane: (..., 3) metres to (...), same precision."""
        return points @ self.normal.astype(points.dtype) + self.offset

    @cached_property
    def axes(self) -> np.ndarray:
        """Return two orthonormal directions in the plane, (2, 3)."""
        x = np.cross(self.normal, (0.0, 0.0, 1.0))
        if np.linalg.norm(x) < 1e-3:
            x = np.cross(self.normal, (0.0, 1.0, 0.0))
        x = x / np.linalg.norm(x)
        return np.stack([x, np.cross(self.normal, x)])

    def is_over(self, points: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """
        Tell which points lie over the seen part of the plane.

        :param points: (..., 3) metres
        :param margin: metres by which the outline is widened; negative narrows it
        :return: (...) bool; False for NaN
        """
        if self.hull is None:
            return np.isfinite(points).all(axis=-1)
        x, y = (points @ axis for axis in self.axes.astype(points.dtype))
        is_over = np.ones(points.shape[:-1], bool)
        for across, along, offset in self._edges.astype(points.dtype):
            is_over &= across * x + along * y <= margin - offset
        return is_over

    @cached_property
    def _edges(self) -> np.ndarray:
        """Return the lines along the outline, (K, 3): a x + b y + c <= 0 inside, in `axes`."""
        assert self.hull is not None  # see above
        corners = cv2.convexHull((self.hull @ self.axes.T).astype(np.float32))[:, 0]
        along = np.roll(corners, -1, axis=0) - corners
        out = along[:, ::-1] * (1.0, -1.0)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return np.column_stack([out, -(out * corners).sum(axis=1)])


@dataclass(frozen=True, eq=False)
class Frame:
    """
    A colour picture with its camera and, when there is one, the depth registered to it.

    - color: (H, W, 3) uint8, RGB
    - camera: the intrinsics of the colour picture
    - depth: (H, W) float32, metres along the optical axis, NaN = no reading; None = no sensor;
      what the lens model does not reach counts as not read
    - stamp_ns: nanoseconds, the image header's
    - frame_id: the camera's optical frame
    - supports: the planes that things stand on, about parallel to each other, that of most things
      first: those that the depth image shows, before that what something else tells
    - up: (3,) unit vector, optical frame, where something tells it; None is a camera held level,
      unless what stands on what says otherwise
    - depth_noise: how far off readings of the depth sensor may be
    - world_from_camera: (4, 4) pose of the optical frame in the world, where TF or a user tells it
    - world_id: the name of that world, TF's frame
    - robot: (H, W) bool, pixels that show the robot itself: never an object, but in front of some;
      its readings count as not read
    - detections: what another program detected in the picture; None where none was asked

    :raises InputError: arrays whose shape, type or size do not fit each other or the camera
    """

    color: np.ndarray
    camera: Camera
    depth: np.ndarray | None = None
    stamp_ns: int = 0
    frame_id: str = 'camera_color_optical_frame'
    supports: tuple[SupportPlane, ...] = ()
    up: np.ndarray | None = None
    depth_noise: DepthNoise = DepthNoise()
    world_from_camera: np.ndarray | None = None
    world_id: str = ''
    robot: np.ndarray | None = None
    detections: 'tuple[Detection, ...] | None' = None

    def __post_init__(self) -> None:
        if self.color.ndim != 3 or self.color.shape[2] != 3 or self.color.dtype != np.uint8:
            raise InputError(
                f'the colour picture is {self.color.shape} {self.color.dtype}; '
                'it must be height x width x 3 bytes, RGB')
        if self.color.size == 0:
            raise InputError('the colour picture is empty; check the camera driver')
        height, width = self.color.shape[:2]
        if (self.camera.width, self.camera.height) != (width, height):
            raise InputError(
                f'the calibration is for {self.camera.width}x{self.camera.height} pixels but the '
                f'picture has {width}x{height}; publish the camera_info of this picture')
        if self.depth is not None and self.depth.shape != (height, width):
            raise InputError(
                f'the depth image has {self.depth.shape[1]}x{self.depth.shape[0]} pixels but the '
                f'picture has {width}x{height}; use the depth image registered to the colour '
                'camera (often called aligned_depth_to_color)')
        if self.robot is not None and self.robot.shape != (height, width):
            raise InputError(
                f'the mask of the robot has {self.robot.shape[1]}x{self.robot.shape[0]} pixels, '
                f'the picture {width}x{height}; publish the mask of this picture')
        unread = [one for one in (self.camera.unseen, self.robot) if one is not None]
        if self.depth is not None and unread:
            object.__setattr__(self, 'depth', np.where(
                np.logical_or.reduce(unread), np.float32(np.nan), self.depth))

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width in pixels."""
        return self.color.shape[:2]

    @cached_property
    def points(self) -> np.ndarray | None:
        """Return the point seen at every pixel: (H, W, 3) float32, metres, NaN = no reading."""
        return None if self.depth is None else cv2.multiply(
            self.camera.rays, cv2.merge([self.depth] * 3))

    @cached_property
    def inverse_depth(self) -> np.ndarray:
        """Return 1 / metres at every pixel: (H, W) float32, 0 = no reading."""
        depth = measured(self.depth)
        return np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0.0)

    def readings(self, mask: np.ndarray, most: int | None = None) -> np.ndarray:
        """
        Return the points that are read in a mask, (N, 3) float32 metres.

        :param mask: (H, W) bool
        :param most: how many pixels of it are looked at, about, evenly spread; None: all
        """
        return self.readings_at(_spread(mask, most))

    def readings_at(self, pixels: np.ndarray) -> np.ndarray:
        """Return the points that are read at pixels, (M,) positions in the flattened picture."""
        depth = measured(self.depth).reshape(-1, 1).take(pixels, axis=0)
        points = self.camera.rays.reshape(-1, 3).take(pixels, axis=0) * depth
        return points.compress(np.isfinite(points[:, 2]), axis=0)

    @cached_property
    def has_depth(self) -> bool:
        """Tell whether the depth image holds at least one reading."""
        return self.depth is not None and any(
            bool(np.isfinite(self.depth[::step, ::step]).any()) for step in (16, 1))

    @property
    def support(self) -> SupportPlane | None:
        """Return the plane that most things stand on; None when none is known."""
        return next(iter(self.supports), None)

    @property
    def pose(self) -> np.ndarray:
        """Return `world_from_camera`, (4, 4); where it is not known its axes are the world's."""
        return np.eye(4) if self.world_from_camera is None else self.world_from_camera

    def depth_std(self, depth: np.ndarray) -> np.ndarray:
        """Return the standard deviation of depth readings: metres to metres, same shape."""
        return self.depth_noise.std(depth, self.camera.fx)


@dataclass(frozen=True, eq=False)
class Detection:
    """
    One object in the picture.

    - label: the class name, or `UNNAMED`
    - score: confidence, 0 to 1
    - bbox: (4,) xmin, ymin, xmax, ymax in pixels, inside the picture; the box covers the pixels
      with xmin <= u < xmax
    - mask: (H, W) bool, the object's visible pixels; None when the detector has no masks
    - hypotheses: names that it may have and their scores, the label among them and best first;
      empty when the detector has no other than the label. Of objects of a scene the label comes
      first, `UNNAMED` may be among them, and they are probabilities
    """

    label: str
    score: float
    bbox: np.ndarray
    mask: np.ndarray | None = None
    hypotheses: tuple[tuple[str, float], ...] = ()

    @property
    def center(self) -> np.ndarray:
        """Return the box's centre in the pixels of the camera, (2,)."""
        edges = box_edges(self.bbox)
        return (edges[:2] + edges[2:]) / 2.0

    @cached_property
    def window(self) -> tuple[slice, slice]:
        """Return the rows and columns of the box, at least one of each."""
        xmin, ymin = np.floor(self.bbox[:2]).astype(int).tolist()
        xmax, ymax = np.ceil(self.bbox[2:]).astype(int).tolist()
        return slice(ymin, max(ymax, ymin + 1)), slice(xmin, max(xmax, xmin + 1))

    def region(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the mask, without one the pixels of the box: (H, W) bool."""
        if self.mask is not None:
            return self.mask
        region = np.zeros(shape, bool)
        region[self.window] = True
        return region

    def pixels(self, most: int) -> np.ndarray:
        """Return which pixels of the flattened picture are in the mask, as `Frame.readings`."""
        if most not in self._pixels:
            self._pixels[most] = _spread(measured(self.mask), most)
        return self._pixels[most]

    @cached_property
    def _pixels(self) -> dict[int, np.ndarray]:
        """Return what `pixels` has found: a detection may be held for many frames."""
        return {}


def _spread(mask: np.ndarray, most: int | None) -> np.ndarray:
    """Return the positions of the pixels of a mask in the flattened picture, see `readings`."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    inside = mask[y:y + height, x:x + width]
    count = np.count_nonzero(inside)
    apart = max(1, isqrt(count // most)) if most else 1
    rows, columns = np.nonzero(inside[::apart, ::apart])
    pixels = (rows * apart + y) * mask.shape[1] + columns * apart + x
    return pixels[::max(1, len(pixels) // most)] if most else pixels


def depth_coverage(frame: Frame, detection: Detection) -> float | None:
    """
    Return the share of an object's pixels that have readings; None without a depth image.

    Without a mask those of its box are taken for its own.
    """
    if frame.depth is None:
        return None
    own = frame.depth[detection.window if detection.mask is None else detection.mask]
    return float(np.isfinite(own).mean()) if own.size else 0.0


@dataclass(frozen=True, eq=False)
class Placement:
    """
    Where an object is, how large, and how sure that is.

    - position: (3,) metres, the object's centre in the optical frame
    - rotation: (3, 3), turns object axes into optical axes: z up, x and y along the faces it shows
      (x the one that points most to the camera), of round things x horizontally to the camera
    - size: (3,) metres along the object's axes
    - position_std: (3,) metres, standard deviation along the optical axes
    - depth_source: where the distance came from, 'sensor', 'plane+size_prior', ...
    - support: the plane the object stands on, None when it stands on none that is known
    """

    position: np.ndarray
    rotation: np.ndarray
    size: np.ndarray
    position_std: np.ndarray
    depth_source: str
    support: SupportPlane | None = None

    @property
    def relative_std(self) -> float:
        """Return the standard deviation of the position, as a share of the distance."""
        return float(np.linalg.norm(self.position_std) / np.linalg.norm(self.position))


@dataclass(frozen=True, eq=False)
class Sighting:
    """One object as one frame shows it: all a reconstructor gets."""

    frame: Frame
    detection: Detection
    placement: Placement


@dataclass(frozen=True, eq=False)
class Texture:
    """
    A picture that is wrapped around a mesh, unshaded as its vertices' colours.

    - image: (H, W, 3) uint8, RGB (sRGB)
    - uv: (F, 3, 2) float32, where each corner of each face lies in it, 0 to 1; (0, 0) is the
      upper left corner of the image, as in glTF
    """

    image: np.ndarray
    uv: np.ndarray

    @cached_property
    def png(self) -> bytes:
        """Return the image as a PNG file."""
        return cv2.imencode('.png', cv2.cvtColor(self.image, cv2.COLOR_RGB2BGR))[1].tobytes()


@dataclass(frozen=True)
class Fit:
    """
    How well a mesh fits what was seen of the object.

    - silhouette_iou: of the mesh's silhouette and the mask, 0 to 1, where neither the picture's
      border nor something nearer hides the object
    - depth_residual: metres, median distance of depth readings from the mesh along the view;
      None when there are none
    """

    silhouette_iou: float
    depth_residual: float | None


@dataclass(frozen=True, eq=False)
class ObjectModel:
    """
    A closed, coloured mesh in its own object frame, and that frame's pose.

    - vertices: (V, 3) float32 metres; the origin is the centre of their bounding box, z is up
    - faces: (F, 3) int32, wound counter-clockwise seen from outside
    - colors: (V, 3) uint8, RGB, unshaded
    - position: (3,) metres, the object frame's origin in the optical frame
    - rotation: (3, 3), turns object axes into optical axes
    - reconstructor: the backend's name
    - texture: finer colours than those of the vertices, where there are any
    - fit: how well it fits what was seen; None where that was not measured, as of a proxy
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    reconstructor: str
    texture: Texture | None = None
    fit: Fit | None = None

    @property
    def points(self) -> np.ndarray:
        """Return the vertices in the optical frame, (V, 3) metres."""
        return self.vertices @ self.rotation.T + self.position

    @property
    def size(self) -> np.ndarray:
        """Return the extents along the object's axes, (3,) metres."""
        return np.ptp(self.vertices, axis=0)


@dataclass(frozen=True, eq=False)
class SceneObject:
    """
    One object of the scene.

    - id: positive, never used again for another object
    - detection: how the latest frame that showed it saw it
    - position, rotation: pose of the object frame in the scene's frame, (3,) metres and (3, 3)
    - covariance: (6, 6) of the pose: metres along, then radians about the scene frame's axes x, y
      and z, as in geometry_msgs/PoseWithCovariance
    - depth_source: where its distance came from
    - model: its mesh; a box with `reconstructor` 'box' until (or unless) it is rebuilt
    - is_final: the mesh is done; False while a reconstruction is pending
    - note: why the object has no better mesh, one sentence; '' when all went well
    - state: 'visible'; 'hidden' behind something nearer, or 'out_of_view', which are remembered
    - is_stale: what is read now contradicts the mesh or its pose; a better mesh is on its way
    """

    id: int
    detection: Detection
    position: np.ndarray
    rotation: np.ndarray
    covariance: np.ndarray
    depth_source: str
    model: ObjectModel
    is_final: bool = True
    note: str = ''
    state: str = 'visible'
    is_stale: bool = False

    @property
    def position_std(self) -> np.ndarray:
        """Return the standard deviation along the scene frame's axes, (3,) metres."""
        return np.sqrt(np.diag(self.covariance)[:3])

    @property
    def pose(self) -> np.ndarray:
        """Return the pose as a matrix that takes object to scene coordinates, (4, 4)."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation
        pose[:3, 3] = self.position
        return pose

    @property
    def points(self) -> np.ndarray:
        """Return the mesh's vertices in the scene's frame, (V, 3) metres."""
        return self.model.vertices @ self.rotation.T + self.position


@dataclass(frozen=True, eq=False)
class Scene:
    """
    All objects that are there when a frame is taken.

    - frame: the latest, in whose optical frame the poses are
    - objects: ordered by id
    - supports: the planes that things stand on, in the optical frame, that of most of them first
    - timing: seconds per stage: 'detect', 'localize', 'reconstruct'
    - notes: what had to be assumed or estimated, one sentence each
    """

    frame: Frame
    objects: tuple[SceneObject, ...] = ()
    supports: tuple[SupportPlane, ...] = ()
    timing: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def support(self) -> SupportPlane | None:
        """Return the plane that most of them stand on; None when none is seen."""
        return next(iter(self.supports), None)
