# SPDX-License-Identifier: Apache-2.0
"""Where networks run: the options `device` and `dtype` of every backend that has one."""

from typing import TYPE_CHECKING
from typing import Any

from img2scene_ros.errors import OptionError
from img2scene_ros.options import option

if TYPE_CHECKING:
    import torch


def device_option() -> Any:
    """Declare the option `device` of a backend; `torch_device` reads it."""
    return option(
        'auto', "Where the network runs: 'auto' (CUDA if there is one), 'cpu', 'cuda', 'cuda:1'",
        read_only=True)


def dtype_option(part: str = 'the network') -> Any:
    """
    Declare the option `dtype` of a backend; `torch_dtype` reads it.

    :param part: what computes in it
    """
    return option(
        'auto', f'Arithmetic of {part}; auto is float16 on CUDA, else float32',
        choices=('auto', 'float32', 'float16', 'bfloat16'), read_only=True)


def torch_device(name: str) -> 'torch.device':
    """
    Return a device by name.

    :param name: 'auto' (CUDA if there is one), 'cpu', 'cuda', 'cuda:1'
    :raises OptionError: no device, or one that is not there
    """
    import torch

    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(
            f"option 'device' is '{name}'; it must be auto, cpu, cuda or cuda:N") from error
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(
            f"option 'device' is '{name}', but PyTorch sees {torch.cuda.device_count()} CUDA "
            "devices on this machine; use 'auto' or 'cpu', or install a CUDA build of torch")
    return device


def torch_dtype(name: str, device: 'torch.device') -> 'torch.dtype':
    """
    Return an arithmetic by name.

    :param name: 'auto' (float16 on CUDA, else float32), 'float32', 'float16', 'bfloat16'
    """
    import torch

    if name == 'auto':
        name = 'float16' if device.type == 'cuda' else 'float32'
    return getattr(torch, name)


def quick_dtype(device: 'torch.device') -> 'torch.dtype':
    """Return what small networks run in: bfloat16 where a CPU has instructions for it (AMX)."""
    import torch

    has_amx = getattr(torch.cpu, '_is_amx_tile_supported', lambda: False)  # from torch 2.4 on
    return torch.bfloat16 if device.type == 'cpu' and has_amx() else torch.float32


def autocast(device: 'torch.device', dtype: 'torch.dtype') -> 'torch.autocast':
    """Return the context that computes products in a dtype; float32 changes nothing."""
    import torch

    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
