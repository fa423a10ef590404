#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train the shape and the segmentation network on a machine that has a GPU and little else: Python
# with torch, numpy, scipy and OpenCV, this folder, and the file of `img2scene pack-shapes`.
#
#   scripts/train_on_gpu.sh SHAPES.npz OUT [SECONDS_SHAPE SECONDS_SEGMENTATION [DEVICE [SETTING ...]]]
#
# OUT gets card.txt, and per network weights, table and picture sheet; run it again to go on.
set -euo pipefail
shapes=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
seconds=("${3:-240}" "${4:-180}")
device=${5:-cuda}
settings=()
for setting in "${@:6}"; do settings+=(--set "$setting"); done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONUNBUFFERED=1

python3 - "$device" > "$out/card.txt" <<'PYTHON'
import sys
from time import perf_counter

import torch

device = torch.device(sys.argv[1])
name, size, sync = 'CPU', 1024, lambda: None
if device.type == 'cuda':
    found = torch.cuda.get_device_properties(device)
    name, size, sync = f'{found.name}, {found.total_memory / 2**30:.0f} GiB', 8192, torch.cuda.synchronize
one = torch.randn(size, size, device=device, dtype=torch.bfloat16)


def seconds_of(work):
    work()
    sync()
    begin = perf_counter()
    for _ in range(5):
        work()
    sync()
    return (perf_counter() - begin) / 5


products, copy = seconds_of(lambda: one @ one), seconds_of(one.clone)
print(f'{name}, torch {torch.__version__}: {2e-12 * size ** 3 / products:.1f} TFLOP/s in bf16, '
      f'{4e-9 * size ** 2 / copy:.0f} GB/s read and written')
PYTHON
cat "$out/card.txt"

students=(shape segmentation)
for number in 0 1; do
    run=$out/${students[number]}
    resume=()
    if [ -e "$run/state.pt" ]; then resume=(--resume); fi
    python3 -m img2scene_ros.cli learn "${students[number]}" --shapes "$shapes" --out "$run" \
        --device "$device" --seconds "${seconds[number]}" "${resume[@]}" "${settings[@]}"
    cat "$run/table.md"
done
