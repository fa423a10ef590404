# SPDX-License-Identifier: Apache-2.0
"""The networks by name; how they are saved and loaded."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from typing import TypeVar

import torch
from torch import nn

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.files import write_whole
from img2scene_ros.models.crop import GEOMETRY
from img2scene_ros.models.crop import check_geometry
from img2scene_ros.models.frustum_unet import FrustumUNet
from img2scene_ros.models.instances import InstanceNetwork
from img2scene_ros.models.occupancy import OccupancyNetwork
from img2scene_ros.models.resfest import ResFesT
from img2scene_ros.models.resnet_unproject import ResNetUnproject
from img2scene_ros.models.ssdlite import SsdLite

NETWORKS: dict[str, type[OccupancyNetwork]] = {
    'frustum-unet': FrustumUNet,
    'resfest': ResFesT,
    'resnet18-unproject': ResNetUnproject,
}
KINDS: dict[str, type[nn.Module]] = {
    **NETWORKS, 'instances': InstanceNetwork, 'ssdlite': SsdLite}
Network = TypeVar('Network', bound=nn.Module)
PICTURE_SIZE = 112  # pixels of a side of the crops, for weights that specify none
WEIGHTS = 'model.safetensors'
CONFIG = 'config.json'


def network_class(name: str) -> type[nn.Module]:
    """
    Return the class of a network.

    :raises OptionError: an unknown name
    """
    if name not in KINDS:
        raise OptionError(f"there is no network '{name}'; known are {', '.join(KINDS)}")
    return KINDS[name]


def build_network(name: str, **options: Any) -> nn.Module:
    """
    Make a network with random weights.

    :param options: fields of its `Config`
    :raises OptionError: an unknown name, option or value
    """
    kind = network_class(name)
    known = kind.Config.__dataclass_fields__
    unknown = [option for option in options if option not in known]
    if unknown:
        raise OptionError(
            f"'{name}' has no option '{unknown[0]}'; it has {', '.join(known)}")
    return kind(kind.Config(**options))


def save_network(
    network: nn.Module, folder: Path, about: dict[str, Any] | None = None,
    half: bool = False,
) -> None:
    """
    Write a network's weights and shape; a failure leaves what was there before.

    :param about: what else config.json shall say, such as scores
    :param half: in half precision, half the size
    :raises InputError: the folder cannot be written
    """
    name = next(name for name, kind in KINDS.items() if type(network) is kind)
    weights = {
        key: tensor.detach().cpu().contiguous().to(
            torch.float16 if half and tensor.is_floating_point() else tensor.dtype)
        for key, tensor in network.state_dict().items()}
    config = {
        'network': name, 'options': asdict(network.config), 'crop': GEOMETRY, **(about or {})}
    folder = Path(folder)
    # The weights last: whoever finds them finds their shape, too.
    write_whole(folder / CONFIG, json.dumps(config, indent=1).encode())
    write_whole(folder / WEIGHTS, safetensors_of(weights))


def safetensors_of(weights: dict[str, torch.Tensor]) -> bytes:
    """
    Return weights as a file of safetensors, which machines that only train may lack.

    github.com/huggingface/safetensors, Format: the header's length, the header, the numbers.
    """
    kinds = {torch.float16: 'F16', torch.float32: 'F32', torch.int64: 'I64'}
    header, parts, end = {}, [], 0
    for name, tensor in weights.items():
        parts.append(tensor.numpy().tobytes())
        header[name] = {'dtype': kinds[tensor.dtype], 'shape': list(tensor.shape),
                        'data_offsets': [end, end := end + len(parts[-1])]}
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    return b''.join([len(text).to_bytes(8, 'little'), text, *parts])


def load_network(folder: Path, expected: type[Network] = OccupancyNetwork) -> Network:
    """
    Read a network that `save_network` wrote, ready for use (evaluation mode, float32).

    :param expected: its class or a base of it
    :raises InputError: files that are missing, broken, or of another network than they say
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config = read_network_config(folder)
    try:
        network = build_network(config['network'], **config['options'])
    except OptionError as error:
        raise InputError(
            f"'{folder / CONFIG}' describes no network that is known here: {error}") from error
    if not isinstance(network, expected):
        raise InputError(
            f"the network in '{folder}' is '{config['network']}', which is for another task")
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights '{folder / WEIGHTS}': {error}") from error
    expected = network.state_dict()
    odd = sorted(expected.keys() ^ weights.keys()) or [
        key for key, tensor in weights.items() if tensor.shape != expected[key].shape]
    if odd:
        raise InputError(
            f"'{folder / WEIGHTS}' holds weights of another network than the "
            f"'{config['network']}' that its config.json describes (such as '{odd[0]}')")
    network.load_state_dict(weights)
    return network.eval()


def read_network_config(folder: Path) -> dict[str, Any]:
    """
    Return what config.json says about a network.

    :raises InputError: it cannot be read, names no network, or one for other crops
    """
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"there is no network in '{folder}': cannot read {CONFIG} "
                         f'({error.strerror})') from error
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON: {error}") from error
    if not (isinstance(config, dict) and isinstance(config.get('network'), str)
            and isinstance(config.get('options'), dict)):
        raise InputError(f"'{path}' does not name a network that is known here, and its options")
    check_geometry(config.get('crop'), str(path))
    return config


def picture_size(config: dict[str, Any]) -> int:
    """
    Return the pixels of a side of the crops that a network was trained with; others suit it less.

    :param config: as `read_network_config`
    """
    return int(config.get('picture_size', PICTURE_SIZE))
