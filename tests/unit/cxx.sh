#!/bin/sh
# cxx.sh INCLUDE LIBRARY: every public header is C++ too, and a program in it links the runtime.
set -eu
command -v c++ >/dev/null || { echo "skipped: there is no c++"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/main.cpp" <<END
#include "metamix/metamix.h"
int main()
{
    mix_ctx *ctx;
    mix_runtime *rt;
    if (mix_ctx_new(&ctx, nullptr) != MIX_OK)
        return 1;
    const mix_status status = mix_runtime_open(&rt, ctx, "none.mix");
    mix_ctx_free(ctx);
    return status == MIX_EIO ? 0 : 1;
}
END
c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -I "$1" "$folder/main.cpp" "$2" -lm -lpthread \
    -o "$folder/main"
"$folder/main"
for header in "$1"/metamix/*.h; do # each alone, in C
    echo "#include \"metamix/$(basename "$header")\"" >"$folder/alone.c"
    echo 'int nothing;' >>"$folder/alone.c"
    cc -std=c11 -Wall -Wextra -Wpedantic -Werror -I "$1" -c "$folder/alone.c" -o "$folder/alone.o"
done
