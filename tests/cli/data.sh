# data.sh - sourced after check.sh by tests that run jobs: makes the folder data, 64 training and 16
# validation images of random bytes, 8 x 8 pixels, classes 0 1 0 1 ...

# big_endian N: four bytes
big_endian()
{
    printf "\\$(printf %o $(($1 >> 24)))\\$(printf %o $(($1 >> 16 & 255)))"
    printf "\\$(printf %o $(($1 >> 8 & 255)))\\$(printf %o $(($1 & 255)))"
}

# idx PREFIX IMAGES
idx()
{
    { big_endian 2051; big_endian "$2"; big_endian 8; big_endian 8
      LC_ALL=C awk -v n=$(($2 * 64)) 'BEGIN { for (x = i = 0; i < n; i++) {
          x = (x * 61 + 17) % 251; printf "%c", 1 + x % 126 } }'
    } >"data/$1-images-idx3-ubyte"
    { big_endian 2049; big_endian "$2"
      i=0
      while [ $i -lt "$2" ]; do printf "\\$((i % 2))"; i=$((i + 1)); done
    } >"data/$1-labels-idx1-ubyte"
}

mkdir data
idx train 64
idx t10k 16
