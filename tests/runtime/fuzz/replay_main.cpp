// Runs a fuzz target over the files it is given, without libFuzzer: the corpus is a test with any compiler.
#include <fstream>
#include <iostream>
#include <iterator>

#include "fuzz_target.h"

int main(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        std::ifstream file(argv[i], std::ios::binary);
        if (!file) return 2;
        const std::string bytes{std::istreambuf_iterator<char>(file), {}};
        std::cerr << argv[i] << "\n";
        LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    }
    std::cout << argc - 1 << "\n";
    return 0;
}
