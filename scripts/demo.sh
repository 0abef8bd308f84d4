#!/bin/sh
# The demo: a small MobileNet v2 on Fashion-MNIST, first in float, then with 4-bit weights twice at
# one budget: 3 bits in every searched layer, and the bits that MetaMix chooses. Both start from the
# same float network and have the same weight training. Its last epoch, with batch norm's statistics
# fixed, is not in the paper: without it accuracies of so small a network jump by two points from one
# epoch to the next. Stop it and start it again: it goes on.
#
#   scripts/demo.sh [RUNS]     runs go to RUNS, default runs/demo
#   METAMIX, DATA              the command and the data set, when they are elsewhere
set -eu
cd "$(dirname "$0")/.."
runs=${1:-runs/demo}
metamix=${METAMIX:-build/release/metamix}
data=${DATA:-/usr/share/datasets/fashion-mnist}

# Sized for at most six minutes on two cores.
width=0.25
train_limit=20000
float_epochs=8
meta_warmup_epochs=0.5
search_epochs=0.5
stage_a_epochs=1
stage_b_epochs=2
stage_c_epochs=1
stage_c_lr=1e-4
bn_batches=20
target=W4A3
candidates=2,3,4,8

common="--data $data --batch 64 --train-limit $train_limit --seed 1"
search="--candidates $candidates --meta-warmup-epochs $meta_warmup_epochs \
    --search-epochs $search_epochs"
weight_training="--stage-a-epochs $stage_a_epochs --stage-b-epochs $stage_b_epochs \
    --stage-c-epochs $stage_c_epochs --stage-c-lr $stage_c_lr --bn-batches $bn_batches"

# A job whose run is done gives its result again at once; one that was stopped goes on.
# shellcheck disable=SC2086  # lists of options
{
    "$metamix" train --out "$runs/float" $common --width $width --epochs $float_epochs
    "$metamix" compare $target --out "$runs" --from "$runs/float" $common $search \
        $weight_training --layers
}
