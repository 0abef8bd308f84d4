#!/bin/sh
# Checks who includes whom. doc/layers.txt holds the folders of src/ as "layer: what it may include"
# (its own headers and the public ones besides); the rules about libraries are below.
set -eu
cd "$(dirname "$0")/.."
bad=0

complain()
{
    echo "$1"
    bad=1
}

# First folder of every quoted include with a path; nested folders count as their layer.
included()
{
    sed -n 's|^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"/]*\)/.*|\1|p' "$1" | sort -u
}

sources()
{
    for folder; do
        [ ! -d "$folder" ] || find "$folder" -name '*.[ch]'
    done
}

for folder in src/*/; do
    layer=$(basename "$folder")
    grep -q "^$layer:" doc/layers.txt || complain "src/$layer: not in doc/layers.txt"
done

while IFS=: read -r layer below; do
    [ -n "$layer" ] || continue
    for file in $(sources "src/$layer"); do
        for dep in $(included "$file"); do
            case " metamix $layer $below " in
            *" $dep "*) ;;
            *) complain "$file: $layer may not include $dep/" ;;
            esac
        done
    done
done <doc/layers.txt

# The command uses the library as anybody would.
for file in $(sources tools); do
    for dep in $(included "$file"); do
        case $dep in
        metamix | tools) ;;
        *) complain "$file: may include metamix/ headers and its own only, not $dep/" ;;
        esac
    done
done

# only_in HEADERS FOLDER...: a library stays behind the folders that wrap it.
only_in()
{
    headers=$1
    shift
    for file in $(sources src include tools); do
        for folder; do
            case $file in
            "$folder"/*) continue 2 ;;
            esac
        done
        if grep -Eq "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($headers)[>\"]" "$file"; then
            complain "$file: $headers: only in $*"
        fi
    done
}
only_in '(oneapi/dnnl/)?dnnl[a-z_]*\.h' src/engine
only_in '(jpeglib|turbojpeg|spng|zlib)\.h' src/data src/format
only_in 'protobuf-c/protobuf-c\.h|onnx\.pb-c\.h' src/format
exit $bad
