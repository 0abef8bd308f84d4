#!/bin/sh
# The integer runtime's commands: eval --integer, predict, bench, on small quantized networks.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/data.sh"
. "$(dirname "$0")/image.sh"

idx t10k 40 # more than are read at once
common='--data data --threads 1 --quiet'
stages='--stage-a-epochs 1 --stage-b-epochs 1'

# Two runs: gray images of IDX files, whose classes are 0 and 1; a folder of cats and dogs.
check 0 train $common --batch 8 --width 0.1 --epochs 16 --run float
check 0 quantize $common --batch 8 --from float --run gray --candidates 2,4 $stages
check 0 export --from gray --out gray.mix
check 0 finetune $common --batch 8 --from float --run wide --bits W8A8 $stages
pets set
check 0 train --data set --threads 1 --quiet --batch 2 --width 0.1 --image-size 8 --epochs 1 \
    --run pets-float
check 0 finetune --data set --threads 1 --quiet --batch 2 --from pets-float --bits W4A4 --run pets \
    $stages
check 0 export --from pets --out pets.mix

# ---- eval ----

# number NAME FILE: the value of a key
number()
{
    sed -n "s/^  \"$1\": \([-0-9.e]*\),\{0,1\}\$/\1/p" "$2"
}

# close NAME BOUND: its values in float.json and integer.json differ by no more
close()
{
    checks=$((checks + 1))
    awk -v a="$(number "$1" float.json)" -v b="$(number "$1" integer.json)" -v bound="$2" \
        'BEGIN { d = a - b; exit a == "" || b == "" || d > bound || -d > bound }' ||
        fail "$1 differs by more than $2: $(number "$1" float.json), $(number "$1" integer.json)"
}

# One prediction of 40 may differ, where a rounding falls to the other side; with eight bits such a
# rounding hardly moves the loss.
for run in wide gray; do
    check 0 eval $common --from $run --json
    json out
    cp out float.json
    has out '"integer": false'
    check 0 eval $common --from $run --integer --json
    json out
    cp out integer.json
    has out '^  "integer": true'
    has out '^  "images": 40$'
    close top1 2.5
    [ $run = gray ] || close loss 1e-4
done
check 0 eval $common --from gray.mix --json
grep -v '"from"' out >mix.json
grep -v '"from"' integer.json | cmp -s - mix.json || fail 'the run and its .mix file differ'
check 0 eval --data data --threads 1 --from gray.mix
has out '^top-1 % +top-5 % +loss +images$'
has out ' 100.00 +[0-9.]+ +40$'
check 0 eval --data set --from pets.mix --quiet
has out ' 2$'

check 6 eval --data set --from gray.mix
has err '^metamix eval: set: the images have 3 channels, expected 1$'
check 6 eval $common --from gray.mix --image-size 9
has err 'images of 9 x 9 pixels; gray.mix expects 2 and 8 x 8$'
check 2 eval $common --from gray.mix --float
has err '--float does not go with --integer'
check 2 eval $common --integer --weights w
has err '--from is missing'
check 2 eval $common --from gray.mix --normalize unit
has err 'no other normalisation'
check 2 eval $common --from float --integer
has err 'float is a float network'
check 4 eval $common --from missing.mix
has err '^metamix eval: missing.mix: '
head -c 999 gray.mix >cut.mix
check 5 eval $common --from cut.mix
has err '^metamix eval: cut.mix: '

# ---- predict ----

image >one.png
image >two.jpg
head -c 50 one.png >cut.png
check 0 predict gray.mix one.png two.jpg
has out '^one.png: [0-9.]+ ms$'
has out '^two.jpg: [0-9.]+ ms$'
has out '^ +[0-9.]+ %  0$'
has out '^ +[0-9.]+ %  1$'
checks=$((checks + 1))
awk '$2 == "%" { if (n++ && $1 > last) exit 1; last = $1; sum += $1 } /ms$/ { n = 0 }
    END { exit sum < 199.9 || sum > 200.1 }' out || fail 'classes are not by falling probability'
check 0 predict pets.mix one.png --threads 1
has out ' %  cat$'
has out ' %  dog$'
cp out pets.out
check 0 predict pets one.png --threads 2 --cpu-mask c
tail -n 2 pets.out >want
tail -n 2 out | cmp -s - want || fail 'a run and its .mix file predict differently'
check 5 predict pets.mix cut.png one.png missing.png two.jpg
has err '^metamix predict: cut.png: bad PNG'
has err '^metamix predict: missing.png: '
has out '^one.png: '
has out '^two.jpg: '
check 4 predict pets.mix missing.png cut.png one.png
check 5 predict pets.mix cut.png one.png --json
json out
has out '"error": "cut.png: bad PNG'
has out '"name": "cat"'
has out '"probability": [0-9]'
check 2 predict pets.mix
has err 'IMAGE... is missing'
check 2 predict
check 2 predict pets.mix one.png --resize 4
has err 'images resized to 4 and cropped to 8'
check 2 predict float one.png
has err 'float is a float network'
check 5 predict cut.mix one.png
has err 'cut.mix'

# ---- bench ----

check 0 bench gray.mix --runs 4 --threads 1
has out '^gray.mix: mobilenet_v2, 8 x 8 x 1 image, 2 classes, 1 threads$'
has out '^batch +runs +median ms +p95 ms +images/s$'
has out '^   32 +4 +[0-9.]+ +[0-9.]+ +[0-9.]+$'
has out '^arena of the tensors +[0-9.]+ '
has out '^file +[0-9.]+ KiB$'
lacks out '^features'
check 0 bench gray.mix --seconds 0.001 --threads 2 --layers
has out '^features.0.0 +conv +8 +8 +[1-9][0-9]* +[0-9.]+ +[0-9.]+ +[0-9.]+$'
has out '^classifier.1 +conv +8 +8 '
has out ' avgpool '
check 0 bench gray.mix --runs 2 --layers --json
json out
has out '"macs_per_second": [0-9]'
checks=$((checks + 1))
tr -d ',"' <out | awk '$1 == "batch:" { b = $2 } $1 == "median_ms:" { ms = $2 } $1 == "p95_ms:" { p95 = $2 }
    $1 == "images_per_second:" { n++; r = $2 * ms / 1000 / b; if (r < 0.999 || r > 1.001 || p95 < ms) exit 1 }
    END { exit n != 3 }' || fail 'images per second are not batch / median, or p95 is less'
has out "\"file_bytes\": $(wc -c <gray.mix)"
check 0 info --from gray --json
number macs out >macs
check 0 bench gray.mix --runs 1 --layers --json
checks=$((checks + 1))
[ "$(sed -n 's/^ *"macs": \([0-9]*\),$/\1/p' out | awk '{ n += $1 } END { print n }')" = "$(cat macs)" ] ||
    fail "the operators' MACs are not the network's $(cat macs)"
check 2 bench gray.mix --runs 0
has err '--runs: expected a whole number'
check 2 bench gray.mix --seconds nan
has err '--seconds: expected a number'
check 2 bench gray.mix pets.mix
check 2 bench
check 4 bench missing.mix
has err 'missing.mix'
finish
