"""Small networks are quickest on one core."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope='session')
def one_thread() -> Iterator[None]:
    """Keep several cores from waiting for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
