// Driven by tests/runtime/test_allocations.py: asks onnxruntime, whose library is the argument, for a tensor of 64 TiB.
// Out: the status and the text of the error.
#include <cstdio>

#include "backend_ort.h"
#include "error.h"
#include "library_search.h"

int main(int argc, char** argv) {
    using namespace edgeprune;
    if (argc != 2) return 2;
    try {
        open_ort_backend(argv[1], *read_version("1.17"))->new_tensor(DType::float32, {int64_t{1} << 44});
    } catch (const Error& error) {
        std::printf("%d %s\n", error.status(), error.what());
    }
}
