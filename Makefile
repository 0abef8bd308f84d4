# The front door; CMakePresets.json and CMakeLists.txt do the work. `make` builds build/release/metamix.
all:    ; cmake --preset release && cmake --build --preset release
demo:   install all ; scripts/demo.sh
test:   install all ; ctest --preset release --no-tests=error -L '^(quick|full|fuzz)$$' -j2
format: ; git ls-files -z '*.c' '*.h' | xargs -0 clang-format -i
clean:  ; rm -rf build
install: ; scripts/install.sh
.PHONY: all demo test format clean install
.NOTPARALLEL:
