# SPDX-License-Identifier: Apache-2.0
"""img2scene evaluate: networks on shapes, photos and scenes."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from img2scene_ros.cli.terminal import progress_bar
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
    shapes.add_argument(
        '--split', default='all', help='all shapes (default), or those that `img2scene render` '
        'takes for train or test, by the split that the weights record')
    shapes.add_argument(
        '--views', type=int, default=4, metavar='N', help='per shape (default: %(default)s)')
    shapes.add_argument(
        '--seed', type=int, default=0, help='of the views (default: %(default)s)')
    shapes.add_argument(
        '--box-jitter', type=float, default=0.0, metavar='X',
        help="standard deviation of the boxes' edges, in sides (default: %(default)s)")
    shapes.add_argument(
        '--size', type=int, default=112, metavar='PX',
        help='side of the crops (default: %(default)s, as in the reconstructor)')
    shapes.add_argument(
        '--categories', nargs='+', default=(), metavar='NAME', help='only these')
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
    scenes.add_argument('--detector', metavar='NAME', help='short for --set detector=NAME')
    scenes.add_argument(
        '--reconstructor', metavar='NAME', help='short for --set reconstructor=NAME')
    scenes.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set an option, by the name of its ROS parameter (may be repeated)')
    scenes.add_argument(
        '--perfect-boxes', action='store_true',
        help='reconstruct from the true boxes and masks instead of detecting')
    scenes.add_argument(
        '--known-plane', action='store_true',
        help='give the true plane that objects stand on, as a robot does through TF')
    scenes.add_argument(
        '--samples', type=int, default=100, metavar='N',
        help='most scenes, spread over all (default: %(default)s)')
    scenes.add_argument(
        '--seed', type=int, default=0, help='of the depth noise (default: %(default)s)')
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
    return chosen.evaluate(chosen)


def _evaluate_shapes(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.evaluation_shapes import ShapeOptions
    from img2scene_ros.learning.evaluation_shapes import evaluate_shapes

    options = ShapeOptions(chosen.split, chosen.views, chosen.seed, chosen.box_jitter,
                           chosen.size, tuple(chosen.categories))
    return _evaluate(chosen, lambda progress: evaluate_shapes(
        chosen.folder, _candidates(chosen), options, progress))


def _evaluate_pix3d(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.evaluation_pix3d import evaluate_pix3d

    return _evaluate(chosen, lambda progress: evaluate_pix3d(
        chosen.prepared, _candidates(chosen), progress, chosen.every))


def _evaluate_scenes(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.evaluation_scenes import SceneOptions
    from img2scene_ros.learning.evaluation_scenes import evaluate_scenes
    from img2scene_ros.learning.samples import SceneSamples
    from img2scene_ros.learning.shapes import Library
    from img2scene_ros.settings import read_assignments

    settings = read_assignments(chosen.settings)
    for name in ('detector', 'reconstructor'):
        if getattr(chosen, name) is not None:
            settings[name] = getattr(chosen, name)
    options = SceneOptions(
        chosen.samples, chosen.seed, chosen.perfect_boxes, chosen.known_plane)
    return _evaluate(chosen, lambda progress: evaluate_scenes(
        SceneSamples(chosen.folder), Library(chosen.shapes, chosen.meshes, {}), settings, options,
        progress))


def _candidates(chosen: argparse.Namespace) -> list['Candidate']:
    from img2scene_ros.learning.evaluation import load_candidates
    from img2scene_ros.weights import bundled

    return load_candidates(chosen.weights or [bundled('voxel')])


def _evaluate(
    chosen: argparse.Namespace,
    evaluate: Callable[[Callable[[int, int], None]], 'Report'],
) -> int:
    """Evaluate with a progress bar; print the tables, or write what is wanted."""
    from rich.console import Console

    from img2scene_ros.learning.evaluation import write_report

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    with progress_bar(console, 'evaluating') as progress:
        report = evaluate(progress)
    for reason in report.skipped:
        console.print(f'skipped: {reason}')
    if chosen.markdown is None:
        print(report.markdown)
    for path in write_report(report, chosen.json, chosen.markdown, chosen.sheet):
        console.print(f'written: {path}')
    return 0


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--weights', type=Path, action='append', metavar='DIR',
        help='folder of a network (default: the bundled one); may be repeated')
