# SPDX-License-Identifier: Apache-2.0
"""The scene node: camera topics in, objects with poses and meshes out."""

import json
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from math import radians
from pathlib import Path
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn
from std_srvs.srv import SetBool
from std_srvs.srv import Trigger

from img2scene_ros.depth import DepthNoise
from img2scene_ros.detection.topic import TopicDetector
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import attempt
from img2scene_ros.errors import unexpected
from img2scene_ros.files import user_path
from img2scene_ros.nodes import diagnostics
from img2scene_ros.nodes.detection_inputs import DetectedPair
from img2scene_ros.nodes.detection_inputs import DetectionInputs
from img2scene_ros.nodes.detection_inputs import DetectionPairing
from img2scene_ros.nodes.inputs import InputOptions
from img2scene_ros.nodes.inputs import Inputs
from img2scene_ros.nodes.life_cycle import aside
from img2scene_ros.nodes.life_cycle import change_state_aside
from img2scene_ros.nodes.logs import forward_logging
from img2scene_ros.nodes.outputs import ManagedOutput
from img2scene_ros.nodes.outputs import Output
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.nodes.parameters import ParameterGroup
from img2scene_ros.nodes.parameters import declare
from img2scene_ros.nodes.parameters import on_change
from img2scene_ros.nodes.topics import timer
from img2scene_ros.nodes.transforms import Transforms
from img2scene_ros.nodes.transforms import in_world
from img2scene_ros.nodes.transforms import support_at
from img2scene_ros.nodes.workers import Workers
from img2scene_ros.options import option
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.registry import FOLDERS
from img2scene_ros.registry import backend
from img2scene_ros.registry import backends
from img2scene_ros.scene.export import ExportOptions
from img2scene_ros.scene.export import export_scene
from img2scene_ros.scene.export import summary
from img2scene_ros.scene.saved import load_scene
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene


@dataclass(frozen=True)
class NodeOptions(InputOptions):
    """What the node listens to, and what it publishes when."""

    autostart: bool = option(
        True, 'Configure and activate by itself; false waits for a life-cycle manager',
        read_only=True)
    target_frame: str = option(
        '', 'TF frame of the world, z up: objects stay in it while the camera moves, and it tells '
        'what is up; a picture at whose stamp TF does not know the camera in it is skipped; '
        'empty: none', read_only=True)
    tf_timeout: float = option(
        0.2, 'How long each picture waits for the transforms of its stamp; with use_sim_time 2 s '
        'at least, as time may go slowly there [s]', low=0.0, high=10.0, read_only=True)
    support_frame: str = option(
        '', 'TF frame whose plane z = 0 objects stand on, used where the depth image shows no '
        'plane; empty: none', read_only=True)
    driver: str = option(
        '', "The command that starts the camera's driver, said when its topics are missing")
    sync_tolerance: float = option(
        0.02, 'Greatest difference of the stamps of a picture and its depth image [s]',
        low=0.0, high=1.0)
    outputs: tuple[str, ...] = option(
        ('markers', 'overlay', 'cloud', 'labels', 'objects', 'detections', 'tf'),
        'What to publish, by name; planning_scene is one more', group='outputs', read_only=True)
    republish_distance: float = option(
        0.002, 'The scene is published when an object has moved by so much [m]',
        low=0.0, high=1.0)
    republish_angle: float = option(
        2.0, 'The scene is published when an object has turned by so much [degrees]',
        low=0.0, high=180.0)
    republish_period: float = option(
        5.0, 'An unchanged scene is published again after so long, for viewers whose transforms '
        'do not reach back further [s]', low=0.1, high=3600.0)
    save_directory: str = option(
        '~/.ros/img2scene', 'Where ~/save_scene writes the scene, in place of the one before, and '
        '~/load_scene reads it')
    look_timeout: float = option(
        30.0, 'How long ~/look waits for pictures and meshes [s]', low=0.1, high=3600.0)


class SceneNode(LifecycleNode):
    """
    Perceives and rebuilds the objects that a camera sees.

    The executor's only thread serves parameters, services and the life cycle, and puts the newest
    messages where the workers find them. What takes long, as loading models, has threads of its
    own.
    """

    def __init__(self) -> None:
        super().__init__('img2scene')
        forward_logging(self.get_logger())
        self.is_done = False
        self._problems = diagnostics.Problems(self.get_logger())
        self._failure = ''  # why the latest transition failed
        self._pairing = Pairing()
        # While configured:
        self._configured = ExitStack()  # how to undo it
        self._pipeline: Pipeline | None = None
        self._outputs: dict[str, Output] = {}
        self._workers: Workers | None = None
        # While active:
        self._activated = ExitStack()  # how to undo it
        self._inputs: Inputs | None = None
        self._detections: DetectionInputs | None = None
        self._transforms: Transforms | None = None
        self._options = NodeOptions()

        self._node_group = ParameterGroup(NodeOptions)
        self._pipeline_group = ParameterGroup(PipelineOptions)
        self._backend_groups = {
            name: ParameterGroup(found.Options, f'{name}.')
            for group in FOLDERS if group != 'outputs' for name, found in backends(group).items()}
        self._output_groups = {
            name: ParameterGroup(found.Options, f'{name}.')
            for name, found in backends('outputs').items()}
        self._export_group = ParameterGroup(ExportOptions, 'export.')
        self._depth_noise_group = ParameterGroup(DepthNoise, 'depth_noise.')
        self._groups: list[ParameterGroup[Any]] = [
            self._node_group, self._pipeline_group, *self._backend_groups.values(),
            *self._output_groups.values(), self._export_group, self._depth_noise_group]
        self._wrong = declare(self, self._groups)  # start-up values that are not allowed
        on_change(self, self._change)

        self._diagnostics = diagnostics.Diagnostics(self)
        # Groups of their own: what takes long holds up nothing but another call of the same.
        for name, callback in (('save_scene', partial(self._with_scene, self._save)),
                               ('load_scene', partial(self._with_scene, self._load)),
                               ('look', self._on_look)):
            self.create_service(
                Trigger, f'~/{name}', callback, callback_group=MutuallyExclusiveCallbackGroup())
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(Trigger, '~/clear', self._on_clear)
        change_state_aside(self)
        timer(self, diagnostics.TICK, self._on_tick)
        self._start = timer(self, 0.0, self._on_start, MutuallyExclusiveCallbackGroup())

    def close(self) -> None:
        """Leave the life cycle, unless models are being loaded, which nothing can stop."""
        if self._state in ('unconfigured', 'inactive', 'active'):
            self.trigger_shutdown()

    # The life cycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the models and create the publishers."""
        failed = self._attempt('configure', self._configure)
        if failed:
            self._clean_up()
        return failed or super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera."""
        failed = self._attempt('activate', self._activate)
        if failed:
            self._deactivate()
        return failed or super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the objects are kept."""
        self._deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the models, the objects and the publishers."""
        workers = self._workers
        self._clean_up()
        if workers:
            workers.join()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undo everything, in any state; what is being rebuilt is not waited for."""
        self._deactivate()
        self._clean_up()
        return super().on_shutdown(state)

    @property
    def _state(self) -> str:
        return self._state_machine.current_state[1]

    def _attempt(
        self, what: str, action: Callable[[], None],
    ) -> TransitionCallbackReturn | None:
        """Return None when the action succeeds, else FAILURE with the reason in one line."""
        self._failure = ''
        try:
            action()
            return None
        except Img2SceneError as error:
            reason = str(error)
        except Exception as error:
            reason = unexpected(error)
            self.get_logger().debug(traceback.format_exc())
        self._failure = f'cannot {what}: {reason}'
        self.get_logger().error(self._failure)
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        if self._wrong:
            raise OptionError('; '.join(self._wrong.values()))
        options = self._node_group.read(self)
        outputs = {name: backend('outputs', name) for name in options.outputs}
        self._pipeline = Pipeline(self._pipeline_group.read(self), {
            name: group.read(self) for name, group in self._backend_groups.items()})
        if self._pipeline.detector_status:
            self.get_logger().info(f'the detector takes {self._pipeline.detector_status}')
        for name, output in outputs.items():
            try:
                self._outputs[name] = output(self, self._output_groups[name].read(self))
            except MissingDependencyError as error:
                self.get_logger().info(str(error))
                continue
            self._configured.callback(self._outputs[name].close)
        self._pairing = DetectionPairing() if isinstance(
            self._pipeline.detector, TopicDetector) else Pairing()
        self._workers = Workers(
            self._pipeline, self._outputs, self._pairing, self._read, self._problems)
        self._use(self._workers, options)
        self._configured.callback(self._workers.stop)
        self._workers.start()

    def _activate(self) -> None:
        options, undo = self._node_group.read(self), self._activated
        self._options = options
        undo.callback(self._problems.clear)
        undo.callback(self._pairing.clear)
        self._transforms = Transforms(self, options.tf_timeout)
        undo.callback(self._transforms.close)
        for name in ('target_frame', 'support_frame'):
            frame = getattr(options, name)
            if frame:
                self._transforms.listen(f"the parameter '{name}' is '{frame}'", frame)
        self._inputs = Inputs(
            self, self._pairing, options, self._transforms,
            self._depth_noise_group.read(self))
        undo.callback(self._inputs.destroy)
        if isinstance(self._pairing, DetectionPairing):
            self._detections = DetectionInputs(self, self._pairing)
            undo.callback(self._detections.destroy)
        for output in self._outputs.values():
            if isinstance(output, ManagedOutput):
                output.activate()
                undo.callback(output.deactivate)
        self.get_logger().info(f'active; listening to {self._inputs.topics}')

    def _deactivate(self) -> None:
        self._inputs = self._transforms = self._detections = None
        self._undo(self._activated)

    def _clean_up(self) -> None:
        self._pipeline, self._outputs, self._workers = None, {}, None
        self._undo(self._configured)

    def _undo(self, stack: ExitStack) -> None:
        try:
            stack.close()
        except Exception as error:  # the rest is undone all the same
            self.get_logger().error(unexpected(error))

    async def _on_start(self) -> None:
        self._start.cancel()
        if not self.get_parameter('autostart').value:
            self.get_logger().info('waiting to be configured and activated (autostart is false)')
        elif await aside(self.trigger_configure) == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Parameters

    def _change(self, changes: dict[str, Any]) -> None:
        if self._state in ('configuring', 'cleaningup'):
            raise OptionError(f'the node is {self._state}; set {", ".join(changes)} afterwards')
        for group in self._groups:
            if self._pipeline:
                group.check_changeable(self, changes)
            else:
                group.read(self, changes)
        for name in changes:
            self._wrong.pop(name, None)
        if not self._pipeline or not self._workers:
            return
        pipeline_groups = [self._pipeline_group, *self._backend_groups.values()]
        self._pipeline.configure({
            name: changes[name]
            for group in pipeline_groups for name in group.names if name in changes})
        for name, output in self._outputs.items():
            output.options = self._output_groups[name].read(self, changes)
        self._use(self._workers, self._node_group.read(self, changes))

    def _use(self, workers: Workers, options: NodeOptions) -> None:
        self._pairing.tolerance = options.sync_tolerance
        workers.motion = options.republish_distance, radians(options.republish_angle)
        workers.republish_period = options.republish_period

    # Work

    def _read(self, pair: Pair) -> Frame | None:
        inputs = self._inputs
        frame = inputs.frame(pair) if inputs else None
        if inputs is None or frame is None:
            return None
        if self._detections and isinstance(pair, DetectedPair):
            frame = self._detections.add(frame, pair)
        return self._in_world(frame, inputs)

    def _in_world(self, frame: Frame, inputs: Inputs) -> Frame | None:
        """
        Add what TF knows; without the plane the frame still shows something.

        Without the camera's pose nothing is shown, as it would be at a wrong place in the world.

        :raises InputError: TF does not know the camera in `target_frame`
        """
        transforms, options = self._transforms, self._options
        if transforms is None:
            return None
        if options.target_frame:
            try:
                frame = in_world(frame, transforms, options.target_frame)
            except InputError:
                self._pairing.drop('TF does not know the camera')
                if inputs.is_new:  # TF has only begun to arrive
                    return None
                raise
        if not options.support_frame:
            return frame
        try:
            told = support_at(frame, transforms, options.support_frame)
            frame = replace(frame, supports=(told,))
            self._problems.solved('support_frame')
        except Img2SceneError as error:
            self._problems.report('support_frame', str(error))
        return frame

    async def _with_scene(
        self, action: Callable[[Path, Scene], str], _: Trigger.Request,
        response: Trigger.Response,
    ) -> Trigger.Response:
        """
        Answer with what an action makes of the directory and the present scene.

        It takes seconds, as pictures are drawn.
        """
        scene = self._pipeline and self._pipeline.scene
        if not scene:
            response.message = 'there is no scene yet: ' + (
                '; '.join(self._present_problems()) or f'no frame has arrived ({self._state})')
            return response
        name = self._node_group.read(self).save_directory
        result = await aside(lambda: attempt(lambda: action(user_path(name), scene)))
        response.success, response.message = isinstance(result, str), str(result)
        if response.success:
            self.get_logger().info(response.message)
        else:
            self.get_logger().error(response.message)
        return response

    def _save(self, folder: Path, scene: Scene) -> str:
        export_scene(folder, scene, self._export_group.read(self))
        return f'saved {len(scene.objects)} objects in {folder.resolve()}'

    def _load(self, folder: Path, scene: Scene) -> str:
        objects, workers = load_scene(folder, scene.frame), self._workers
        if workers is None:
            raise InputError(f'the node is {self._state} now')
        workers.remember(objects)
        return f'loaded {len(objects)} objects of {folder.resolve()}'

    async def _on_look(
        self, _: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        workers, timeout = self._workers, self._node_group.read(self).look_timeout
        if not workers or not self._inputs:
            response.message = f'cannot look: the node is {self._state}, not active'
            return response
        scene = await aside(lambda: workers.look(timeout))
        if scene is None:
            response.message = (
                f'no pictures came, or not all meshes were ready, within {timeout:g} s '
                '(look_timeout)' + ''.join(f'; {line}' for line in self._present_problems()))
            return response
        response.success, response.message = True, json.dumps(summary(scene))
        return response

    def _on_enable(
        self, request: SetBool.Request, response: SetBool.Response,
    ) -> SetBool.Response:
        if not self._workers:
            response.message = f'the node is {self._state}; configure it first'
            return response
        self._workers.is_enabled = request.data
        response.success = True
        response.message = 'perceiving' if request.data else 'paused; ~/look still works'
        return response

    def _on_clear(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        workers = self._workers
        if workers:
            workers.clear()
        response.success = True
        return response

    def _on_tick(self) -> None:
        if self._inputs:
            self._inputs.follow()
            if self._detections:
                self._detections.follow()
            self._inputs.report(self._problems, self._missing(self._inputs))
        is_paused = self._inputs and self._workers and not self._workers.is_enabled
        self._diagnostics.publish(
            'paused by ~/enable' if is_paused else self._state, self._present_problems(),
            self._measured())

    def _missing(self, inputs: Inputs) -> str:
        """Return what does not arrive; of a camera whose driver is known also depth images."""
        options, depth = self._node_group.read(self), self.resolve_topic_name('depth')
        missing = inputs.missing() or (self._detections.missing() if self._detections else '')
        if not options.driver:
            return missing
        if not missing and options.use_depth and not self.count_publishers(depth):
            missing = f"nobody publishes depth images on '{depth}', so distances are less exact"
        return missing and f'{missing}. This camera publishes all with `{options.driver}`'

    def _present_problems(self) -> list[str]:
        failure = [self._failure] if self._failure else []
        return failure + list(self._problems.present.values())

    def _measured(self) -> dict[str, object]:
        values: dict[str, object] = {
            f'dropped: {reason}': n for reason, n in self._pairing.dropped.items()}
        pipeline, workers = self._pipeline, self._workers  # a transition may be under way
        if pipeline and pipeline.detector_status:
            values['detector'] = pipeline.detector_status
        scene = pipeline.scene if pipeline else None
        if scene and scene.notes:
            values['notes'] = '; '.join(scene.notes)
        memory = diagnostics.resident_memory()
        if memory:
            values['memory [MB]'] = round(memory)
        return values | (workers.measured() if workers else {})
