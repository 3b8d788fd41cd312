// Counts the work of the tokenizer: tokenizer_work_cli TOKENIZER_JSON < texts prints, for every text (a little-endian
// u32 of its size, its bytes), the basic blocks that encoding it, and decoding its ids one by one, ran through. Every
// block of the tokenizer's sources calls the counter below
// (-fsanitize-coverage=trace-pc); this file and the C and C++ libraries are not counted. Equal input gives equal counts
// on every run.
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "tokenizer.h"

namespace {
uint64_t blocks = 0;
}  // namespace

extern "C" void __sanitizer_cov_trace_pc();
extern "C" void __sanitizer_cov_trace_pc() {
    ++blocks;
}

static void measure(const edgeprune::Tokenizer& tokenizer, const std::string& text) {
    blocks = 0;
    const std::vector<int32_t> ids = tokenizer.encode(text);
    const uint64_t encoding = blocks;

    blocks = 0;
    edgeprune::StreamDecoder decoder(tokenizer);
    for (const int32_t id : ids) decoder.push(id);
    decoder.finish();
    std::cout << "{\"encode\": " << encoding << ", \"decode\": " << blocks << ", \"tokens\": " << ids.size() << "}\n";
}

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    std::ifstream file(argv[1], std::ios::binary);
    const auto tokenizer = edgeprune::Tokenizer::from_json(std::string{std::istreambuf_iterator<char>(file), {}});
    for (uint32_t size = 0; std::cin.read(reinterpret_cast<char*>(&size), sizeof size);) {
        std::string text(size, '\0');
        if (!std::cin.read(text.data(), size)) return 1;
        measure(*tokenizer, text);
    }
    return 0;
}
