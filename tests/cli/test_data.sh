#!/bin/sh
# Data sets that are not what a run was made with, and what is said of a data set and of a target.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/data.sh"
. "$(dirname "$0")/image.sh"

common='--batch 2 --threads 1 --image-size 8'
train="$common --width 0.1 --epochs 1"

pets set
check 0 train --data set $train --out run
has err '^set: 2 training and 2 validation images of 2 classes$'
check 0 train --data set/ $train --out ./run # the same run
has out '^best epoch'
check 9 train --data elsewhere $train --out run
has err 'was made with data "set"; now it is "elsewhere"'

# entries that are no images by name
image >set/train/cat/2.webp
mkdir set/val/dog/more
check 0 eval --data set --from run
has err 'set/train/cat: left out 1 that are no files called .jpg, .jpeg or .png, "2.webp" first'
has err 'set/val/dog: left out 1 .*, "more" first'

# a class that sorts elsewhere now has another number; one that is merely renamed has not
pets renamed
mv renamed/train/cat renamed/train/eel
mv renamed/val/cat renamed/val/eel
check 9 eval --data renamed --from run
has err 'renamed: class "dog" is number 0 of the sorted names; in the network it is number 1'
check 9 finetune --data renamed $common --from run --bits W4A4 --out tuned
pets other
mv other/train/cat other/train/cow
mv other/val/cat other/val/cow
check 0 eval --data other --from run
has err 'other: class 0 is "cow"; in the network it is "cat"'

# what is known of a target before the search
random="--data data --batch 32 --threads 1"
check 0 train $random --width 0.1 --epochs 1 --out float
quantize="quantize $random --from float --stage-a-epochs 0 --stage-b-epochs 1"
check 0 $quantize --out most --target W8A8
has err 'target W8A8 is a cost; the weights of this network get 4 bits'
has err 'target W8A8, [0-9.]+ GBOPs, leaves nothing to search: the highest candidates cost [0-9.]+'
check 0 $quantize --out least --target 0.00001
has err 'target 0.00001, 1e-05 GBOPs, cannot be met: the lowest candidates cost [0-9.]+'

# the file's ending says what is written
check 0 export --from least --out net.onnx
has out '^net.onnx: onnx, '
check 0 finetune --data set $common --from run --bits W4A4 --out quantized --stage-a-epochs 0 \
    --stage-b-epochs 0 --stage-c-epochs 1
check 0 export --from quantized --out net.mix
check 0 eval --data set --from net.mix
check 9 eval --data renamed --from net.mix
has err 'renamed: class "dog" is number 0 of the sorted names; in net.mix it is number 1'
check 4 info --from net.mix
has err 'net.mix: an integer network; expected the run'

# a stopped run goes on with as many images as before
"$METAMIX" train $random --width 0.1 --epochs 100000 --out stopped --quiet 2>/dev/null &
for i in $(seq 300); do
    [ -e stopped/last.safetensors ] && break
    sleep 0.1
done
kill $!
wait $!
idx train 48
check 9 train $random --width 0.1 --epochs 100000 --out stopped
has err 'was made with 64 training images of data; now there are 48'

check 2 info --bits W4A3 --act-bits 5
has err '--act-bits does not go with --bits'
check 2 quantize --data set --arch net.pth --out never
has err 'a checkpoint goes to --weights'
finish
