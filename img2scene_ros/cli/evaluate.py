# SPDX-License-Identifier: Apache-2.0
"""img2scene evaluate: networks on shapes, photos and scenes."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from img2scene_ros.cli import terminal
from img2scene_ros.learning.data_config import SceneOptions
from img2scene_ros.learning.data_config import ShapeOptions
from img2scene_ros.packages import require_packages

if TYPE_CHECKING:  # heavy, and not needed for --help
    from img2scene_ros.learning.evaluation import Candidate
    from img2scene_ros.learning.evaluation import Report


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'evaluate', help='score networks on shapes, photos and scenes',
        description='Score networks beside simple baselines: tables in Markdown and JSON, and a '
        'sheet of pictures.')
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='WHAT')
    shapes = kinds.add_parser(
        'shapes', help='voxel networks on rendered views of shapes',
        description='Render views of every shape of a folder and score voxel networks on them.')
    shapes.add_argument(
        'folder', type=Path, metavar='FOLDER',
        help='CATEGORY/SHAPE/voxel.mat and model.ply, as in Pix3D')
    _add_weights(shapes)
    terminal.add_options(shapes, ShapeOptions)
    shapes.set_defaults(evaluate=_evaluate_shapes)
    pix3d = kinds.add_parser(
        'pix3d', help="voxel networks on photos, by Pix3D's protocol",
        description="Score voxel networks on Pix3D's photos by its own protocol. The annotated "
        "pose takes their answers into the model's axes, so it is the shape that is compared.")
    pix3d.add_argument(
        'prepared', type=Path, metavar='PREPARED', help='what `img2scene prepare-pix3d` wrote')
    _add_weights(pix3d)
    pix3d.add_argument(
        '--all', action='store_true', dest='every',
        help='also pictures that are truncated or occluded, which the protocol skips')
    pix3d.set_defaults(evaluate=_evaluate_pix3d)
    scenes = kinds.add_parser(
        'scenes', help='detector and whole pipeline on rendered scenes',
        description='Run the pipeline on rendered scenes, with depth and without, and compare '
        'boxes, places, sizes and solids with the truth.')
    scenes.add_argument(
        'folder', type=Path, metavar='DIR', help='what `img2scene render --kind scenes` wrote')
    scenes.add_argument(
        '--shapes', type=Path, metavar='DIR', help='the folder of shapes that they were made of')
    scenes.add_argument(
        '--meshes', type=Path, metavar='DIR', help='the folder of meshes that they were made of')
    terminal.add_settings(scenes, 'detector', 'reconstructor')
    terminal.add_options(scenes, SceneOptions)
    scenes.set_defaults(evaluate=_evaluate_scenes)
    for kind in (shapes, pix3d, scenes):
        kind.add_argument('--json', type=Path, metavar='FILE', help='write all values')
        kind.add_argument(
            '--markdown', type=Path, metavar='FILE', help='write the tables instead of printing')
        kind.add_argument(
            '--sheet', type=Path, metavar='FILE.png', help='draw inputs, truths and predictions')
        kind.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    require_packages(
        'img2scene evaluate', ('torch', 'safetensors'), 'evaluate elsewhere', extra='train')
    from rich.console import Console

    from img2scene_ros.learning.evaluation import write_report

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    with terminal.progress_bar(console, 'evaluating') as progress:
        report = chosen.evaluate(chosen, progress)
    for reason in report.skipped:
        console.print(f'skipped: {reason}')
    if chosen.markdown is None:
        print(report.markdown)
    for path in write_report(report, chosen.json, chosen.markdown, chosen.sheet):
        console.print(f'written: {path}')
    return 0


def _evaluate_shapes(chosen: argparse.Namespace, progress: Callable[[int, int], None]) -> 'Report':
    from img2scene_ros.learning.evaluation_shapes import evaluate_shapes

    return evaluate_shapes(
        chosen.folder, _candidates(chosen), terminal.options_of(chosen, ShapeOptions), progress)


def _evaluate_pix3d(chosen: argparse.Namespace, progress: Callable[[int, int], None]) -> 'Report':
    from img2scene_ros.learning.evaluation_pix3d import evaluate_pix3d

    return evaluate_pix3d(chosen.prepared, _candidates(chosen), progress, chosen.every)


def _evaluate_scenes(chosen: argparse.Namespace, progress: Callable[[int, int], None]) -> 'Report':
    from img2scene_ros.learning.evaluation_scenes import evaluate_scenes
    from img2scene_ros.learning.samples import SceneSamples
    from img2scene_ros.learning.shapes import Library

    return evaluate_scenes(
        SceneSamples(chosen.folder), Library(chosen.shapes, chosen.meshes, {}),
        terminal.settings_of(chosen, 'detector', 'reconstructor'),
        terminal.options_of(chosen, SceneOptions), progress)


def _candidates(chosen: argparse.Namespace) -> list['Candidate']:
    from img2scene_ros.learning.evaluation import load_candidates
    from img2scene_ros.weights import bundled

    return load_candidates(chosen.weights or [bundled('voxel')])


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--weights', type=Path, action='append', metavar='DIR',
        help='folder of a network (default: the bundled one); may be repeated')
