#!/bin/sh
# --weights in every command: the same file in three forms, and what is refused.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/data.sh"

common='--data data --batch 32 --threads 1'
net='--width 0.1'
stages='--stage-a-epochs 1 --stage-b-epochs 1'
python=$(command -v python3) || { echo 'python3 is needed to write .pth files'; exit 1; }

# figures NAME ARGUMENT...: eval's numbers, without where the network came from, in the file NAME
figures()
{
    name=$1
    shift
    check 0 eval $common "$@" --json
    grep -E '"(top1|top5|loss|images)"' out >"$name"
}

# same FILE: as the float run's
same()
{
    checks=$((checks + 1))
    cmp -s float.figures "$1" || fail "$1 differs from float.figures"
}

check 0 train $common $net --run float --epochs 1
figures float.figures --from float
for form in zip legacy; do
    "$python" "${0%/*}/save_pth.py" float/best.safetensors $form.pth $form || exit 1
    figures $form.figures $net --weights $form.pth
    has err "^$form.pth: 'state_dict' is read, 1 keys beside it are not$"
    same $form.figures
done
cp float/last.safetensors own.safetensors
figures own.figures $net --weights own.safetensors --quiet
lacks err .
same own.figures
check 0 eval $common $net --weights own.safetensors
has err 'a checkpoint of metamix; its [0-9]+ tensors of quantizers and training state'

check 0 info $net --size 8 --channels 1 --classes 2 --weights zip.pth
has out '^zip.pth fits: 262 tensors taken, 0 unused$'
check 0 info $net --size 8 --channels 1 --classes 7 --weights zip.pth --json
json out
has out '"new_classifier": true'
has out '"taken": 260'
has err 'no classifier for 7 classes; classifier.1 starts from random'
check 5 info --width 0.5 --size 8 --channels 1 --weights zip.pth
has err "tensor 'features.[0-9.a-z]+' has shape \([0-9,]+\); mobilenet_v2 needs \([0-9,]+\)$"

check 0 train $common $net --epochs 1 --run again --weights legacy.pth
lacks err 'starts from random'
check 0 quantize $common $net --weights zip.pth --run both --candidates 2,4 --teacher self $stages
json both/config.json
has both/config.json '"from": null'
has both/config.json '"weights": "zip.pth"'
has both/config.json '"width": 0.1'
has out '^start in float '
check 9 quantize $common $net --weights legacy.pth --run both --candidates 2,4 --teacher self $stages
has err 'weights "zip.pth"; now it is "legacy.pth"'
check 0 quantize $common --from float --run from --candidates 2,4 --teacher self $stages
cmp -s from/best.safetensors both/best.safetensors || fail '--from and --weights differ'
lacks from/config.json '"width"'
check 0 select $common $net --weights zip.pth --run select --candidates 2,4
check 0 finetune $common $net --weights legacy.pth --bits W4A4 --run uniform $stages
has out '  4.00$'
check 2 finetune $common $net --weights legacy.pth --run refused $stages
has err 'legacy.pth is a float network: bits are needed'

check 4 train $common $net --run nothing --weights missing.pth
has err 'missing.pth: cannot open'
check 5 eval $common $net --weights data/train-images-idx3-ubyte
has err 'neither a .safetensors file nor one of torch.save'
check 4 eval $common --from zip.pth
has err 'a file of another tool is given as weights'

# Another number of classes: the last image is of a third.
cp -r data three
for half in 'train 71' 't10k 23'; do
    printf '\2' | dd of="three/${half% *}-labels-idx1-ubyte" bs=1 seek="${half#* }" conv=notrunc \
        2>/dev/null
done
three='--data three --batch 32 --threads 1'
check 6 eval $three $net --weights zip.pth
has err 'zip.pth has no classifier for the 3 classes of three'
check 0 train $three $net --epochs 1 --run three-classes --weights zip.pth
has err 'no classifier for 3 classes; classifier.1 starts from random'
check 0 select $three $net --run random-classifier --weights zip.pth --candidates 2,4 --quiet
has err 'zip.pth has no classifier for the classes of three: .* Train the float network first'
check 2 quantize $three $net --run refused-too --weights zip.pth --teacher self
has err "teacher: zip.pth has no classifier"
finish
