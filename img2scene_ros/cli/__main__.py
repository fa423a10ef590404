# SPDX-License-Identifier: Apache-2.0
"""`python -m img2scene_ros.cli`, as torchrun starts it."""

import sys

from img2scene_ros.cli import main

if __name__ == '__main__':
    sys.exit(main())
