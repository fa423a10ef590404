#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Downloads the released checkpoints that test/released runs, 3 GB: FOLDER, then
#   IMG2SCENE_CHECKPOINTS=FOLDER make test TESTS=test/released
# Needs `hf` (pip install huggingface_hub) and curl.
set -euo pipefail
folder=${1:?usage: scripts/download_checkpoints.sh FOLDER}
mkdir -p "$folder"

checkpoint() {  # REPOSITORY [FILE ...] [--revision NAME]
    hf download "$@" --local-dir "$folder/$(basename "$1")"
}

checkpoint facebook/detr-resnet-50 --revision no_timm
checkpoint PekingU/rtdetr_v2_r18vd
checkpoint ustc-community/dfine-small-coco
checkpoint Roboflow/rf-detr-seg-small
checkpoint facebook/sam2.1-hiera-tiny
checkpoint depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf
checkpoint stabilityai/TripoSR
curl --fail --location --output "$folder/cats_remotes.jpg" \
    http://images.cocodataset.org/val2017/000000039769.jpg
