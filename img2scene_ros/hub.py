# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the Hugging Face Hub: from a folder, the cache or the network, in that order."""

import json
import logging
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from typing import TypeVar

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.files import user_path

Result = TypeVar('Result')
_LOGGER = logging.getLogger(__name__)
_PATIENCE = 5.0  # seconds for the Hub's first answer
# What a vision checkpoint consists of; nothing else of a repository is downloaded.
_FILES = ('config.json', '*processor_config.json', 'model*.safetensors*')


def checkpoint_folder(
    checkpoint: str, revision: str, alternative: str, files: tuple[str, ...] = _FILES,
    optional: tuple[str, ...] = (),
) -> Path:
    """
    Return the folder that holds a checkpoint's files.

    The network is touched only for what is not cached, and only here: load what is found with
    `local_files_only=True`, because transformers' own downloads retry for minutes without one.

    :param checkpoint: a folder, or OWNER/NAME on the Hub
    :param revision: branch, tag or commit on the Hub
    :param alternative: what else the user can do, for the error's last words
    :param files: what the checkpoint consists of; the first without wildcards
    :param optional: what else is downloaded, where there is any
    :raises InputError: neither a folder nor a possible name
    :raises MissingDependencyError: not on this machine, and it cannot be downloaded
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    folder = cached_checkpoint(checkpoint, revision, files)
    if folder:
        return folder
    try:
        _require_answer()
        _LOGGER.info("downloading the checkpoint '%s' from the Hugging Face Hub", checkpoint)
        folder = Path(snapshot_download(
            checkpoint, revision=revision, allow_patterns=files + optional))
        if _lacking(folder, files):
            raise FileNotFoundError(
                f"there is no {' and no '.join(_lacking(folder, files))}")
        return folder
    except Exception as error:  # the hub's HTTP library, and so its errors, vary with its version
        reason = isinstance(error, LocalEntryNotFoundError) and error.__cause__ or error
        at_revision = '' if revision == 'main' else f' --revision {revision}'
        raise MissingDependencyError(
            f"the checkpoint '{checkpoint}' (revision '{revision}') is not on this machine and "
            f'cannot be downloaded ({type(reason).__name__}: {first_line(reason)}): connect to '
            f'the network once, or run `hf download {checkpoint}{at_revision}` where there is '
            f"one, or set 'checkpoint' to a local folder, or use {alternative}") from error


def cached_checkpoint(
    checkpoint: str, revision: str, files: tuple[str, ...] = _FILES,
) -> Path | None:
    """
    Return the folder of a checkpoint that is on this machine; None when it is not, or not whole.

    :param checkpoint: a folder, or OWNER/NAME on the Hub
    :param revision: branch, tag or commit on the Hub
    :param files: what the checkpoint consists of; the first without wildcards
    :raises InputError: neither a folder nor a possible name
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = user_path(checkpoint)
    if folder.is_dir():
        return folder
    try:
        cached = try_to_load_from_cache(checkpoint, files[0], revision=revision)
    except HFValidationError as error:
        raise InputError(
            f"the checkpoint '{checkpoint}' is neither a folder on this machine nor a name on the "
            'Hugging Face Hub (OWNER/NAME); check the path') from error
    if not isinstance(cached, str) or _lacking(Path(cached).parent, files):
        return None
    return Path(cached).parent


def _require_answer() -> None:
    """
    Ask the Hub for a sign of life.

    The Hub's client tries for minutes where a network swallows what is sent, and the time that
    looking up a host's name takes cannot be limited; so that is not waited for.

    :raises Exception: whatever the client says, or TimeoutError
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    within(_PATIENCE, lambda: get_session().head(constants.ENDPOINT, timeout=_PATIENCE))


def within(seconds: float, ask: Callable[[], Result]) -> Result:
    """
    Return what asking returns; what takes longer is left to a thread of its own.

    :raises Exception: whatever asking raises, or TimeoutError
    """
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(ask())
        except Exception as error:
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    try:
        return outcome.result(seconds)
    except FutureTimeout as error:
        raise TimeoutError(f'no answer within {seconds:.0f} s') from error


def _lacking(folder: Path, files: tuple[str, ...]) -> list[str]:
    return [pattern for pattern in files if not any(folder.glob(pattern))]


@contextmanager
def reading(what: str, checkpoint: str) -> Iterator[None]:
    """
    Turn whatever a damaged file makes the Hugging Face libraries raise into one sentence.

    :raises MissingDependencyError: a package that the checkpoint needs cannot be imported
    :raises InputError: all else
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"the checkpoint '{checkpoint}' needs a package that is missing or does not fit the "
            f'others ({first_line(error.__cause__ or error)}); install or upgrade it') from error
    except Exception as error:
        import transformers

        raise InputError(
            f"the {what} of the checkpoint '{checkpoint}' cannot be read with transformers "
            f'{transformers.__version__} ({type(error).__name__}: {first_line(error)}); '
            'download it again or choose another') from error


def processor_values(folder: Path) -> dict[str, Any]:
    """Read the image processor's values; newer checkpoints keep them in processor_config.json."""
    path = folder / 'preprocessor_config.json'
    if path.is_file():
        return json.loads(path.read_text())
    return json.loads((folder / 'processor_config.json').read_text())['image_processor']


def quiet_libraries() -> None:
    """Keep warnings and progress bars of the Hugging Face libraries out of the user's log."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    hub_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # the hub's too


def first_line(error: BaseException) -> str:
    """Return an error's first line, cut to a length that a log bears."""
    return str(error).strip().split('\n')[0][:200]
