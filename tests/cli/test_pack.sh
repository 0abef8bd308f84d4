#!/bin/sh
# Packs a data set and reads it again.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/image.sh"

pets set

check 0 pack --data set --out packed --quiet
has out '^packed: 2 classes$'
has out '^train +2 +0 +0 +'
[ ! -s err ] || fail '--quiet, but there is output'
check 2 pack --data set --out packed
has err 'packed/val.pack: a packed data set is there already'
check 0 pack --data set --out again --size 1 --json
json out
has out '"resized": 2'
has out '"bytes": [1-9]'

check 0 train --data packed --run run --epochs 1 --batch 2 --width 0.1 --image-size 8 --threads 1
has out ' 2 classes$'

printf 'x' >set/train/cat/2.png
check 5 pack --data set --out bad
has err 'set/train/cat/2.png'
[ ! -e bad/train.pack ] || fail 'a pack was left behind'
check 0 pack --data set --out bad --skip-bad-images
has out '^train +2 +0 +1 +'
rm bad/val.pack
check 4 train --data bad --run run2
has err 'bad/val.pack is missing: the packing was not finished'
finish
