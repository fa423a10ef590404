# SPDX-License-Identifier: Apache-2.0
"""
What each way of `markers.mesh_transport` costs, on one recorded frame.

    python benchmarks/mesh_transports.py data/frames/ycb_1 [REPEATS]

Processor time, not time on the clock, so that other work on the machine does not count. Prints
medians, and in brackets the share of `inline`. *first*: the message that shows the objects for
the first time, with building it and writing the files; *later*: the next one, after all have
moved; *files*: what each viewer fetches once.
"""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time
from urllib.request import urlopen

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from visualization_msgs.msg import MarkerArray

from img2scene_ros.io.frames import load_frame
from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.outputs.markers import MarkersOptions
from img2scene_ros.nodes.outputs.markers import MarkersOutput
from img2scene_ros.nodes.topics import LATCHED
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Scene

HEADINGS = ('transport', 'first [kB]', 'first [ms]', 'later [kB]', 'later [ms]', 'files [kB]')


def main(folder: str, repeats: str = '5') -> None:
    """Print the table."""
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    frame = load_frame(Path(folder))
    pipeline = Pipeline()
    scene = pipeline.run(frame)
    faces = sum(len(item.model.faces) for item in scene.objects)
    print(f'{len(scene.objects)} objects, {faces} triangles\n')
    transports = ('inline', 'inline_texture', 'file', 'http')
    runs = {name: [] for name in transports}
    for _ in range(int(repeats)):  # by turns
        for name in transports:
            runs[name].append(measured(name, scene))
    medians = {name: [median(values) for values in zip(*runs[name])] for name in transports}
    print(markdown_table(HEADINGS, [
        [name, *(f'{value:.0f}' + (f' ({value / inline:.3f})' if inline else '')
                 for value, inline in zip(medians[name], medians['inline']))]
        for name in transports]))


def measured(transport: str, scene: Scene) -> tuple[float, ...]:
    """Return the numbers of a row: of the first message, of a later one, and of all files."""
    context, received = Context(), []
    rclpy.init(context=context, domain_id=free_domain())
    node = LifecycleNode('img2scene', context=context)
    node.declare_parameters('', [('republish_distance', 0.002), ('republish_angle', 2.0)])
    viewer = rclpy.create_node('viewer', context=context)
    viewer.create_subscription(
        MarkerArray, '/img2scene/markers', received.append, LATCHED, raw=True)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(viewer)
    output = MarkersOutput(node, MarkersOptions(mesh_transport=transport))
    node.trigger_configure()
    node.trigger_activate()
    output.activate()
    moved = replace(scene, objects=tuple(
        replace(item, position=item.position + 0.01) for item in scene.objects))
    numbers = []
    for shown in (scene, moved):
        start = process_time()
        output.show(shown, True)
        seconds = process_time() - start
        count = len(numbers) // 2 + 1
        while len(received) < count:
            executor.spin_once(timeout_sec=0.1)
        numbers += [len(received[-1]) / 1e3, 1e3 * seconds]
    uris = {uri.decode() for uri in re.findall(rb'(?:file|http)://[^\0]+?\.dae', received[-1])}
    files = [uri.replace('.dae', suffix) for uri in uris for suffix in ('.dae', '.png')]
    numbers.append(sum(len(urlopen(uri).read()) for uri in files) / 1e3)
    output.close()
    executor.remove_node(viewer)
    viewer.destroy_node()
    node.destroy_node()
    rclpy.shutdown(context=context)
    return tuple(numbers)


if __name__ == '__main__':
    main(*sys.argv[1:])
