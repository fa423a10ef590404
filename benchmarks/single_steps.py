# SPDX-License-Identifier: Apache-2.0
"""
Processor time of single steps on a recorded frame, in milliseconds.

    OMP_NUM_THREADS=1 python benchmarks/single_steps.py
"""

from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time
from timeit import Timer

import numpy as np
import xatlas

from img2scene_ros.detection.masks import mask_from_color
from img2scene_ros.detection.masks import mask_from_depth
from img2scene_ros.detection.supports import supported
from img2scene_ros.io.frames import load_frame
from img2scene_ros.mesh.gltf import Node
from img2scene_ros.mesh.gltf import glb
from img2scene_ros.mesh.unwrap import unwrap
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.reconstruction.fit import measured_fit
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Sighting
from img2scene_ros.types import Texture

FRAME = Path(__file__).parents[1] / 'data/frames/table_blue_mug'
BBOX = np.array([267.0, 163.0, 422.0, 327.0])  # of the mug

if __name__ == '__main__':
    frame = supported(load_frame(FRAME))
    points = frame.points  # computed once
    mug, = Pipeline().run(frame).objects
    model, sighting = mug.model, Sighting(frame, mug.detection, None)
    nodes = [
        Node(str(number), replace(model, texture=Texture(
            model.texture.image.copy(), model.texture.uv)), np.eye(4), {})
        for number in range(50)]
    steps = {
        '`mask_from_depth`: a bbox on a table': lambda: mask_from_depth(frame, BBOX),
        '`mask_from_color`: the same without depth': lambda: mask_from_color(frame, BBOX),
        f'`measured_fit`: a mesh of {len(model.faces):,} triangles':
            lambda: measured_fit(model, sighting),
        '`unwrap`: UV charts of it':
            lambda: unwrap(mug.points, model.faces, frame.camera, 512),
        '`xatlas.parametrize`: the same by xatlas alone':
            lambda: xatlas.parametrize(mug.points, model.faces),
        f'`glb`: {len(nodes)} such objects with textures': lambda: glb(nodes)}
    print(markdown_table(['step', 'processor time [ms]'], [
        [name, f'{1000 * median(Timer(step, timer=process_time).repeat(5, 1)):.0f}']
        for name, step in steps.items()]))
