// Driven by tests/runtime/test_providers.py: MANIFEST. Out: a line per input with a free dimension of every graph: the
// graph's file, the input, and its smallest, usual and largest shape.
#include <cstdio>
#include <fstream>
#include <iterator>

#include "manifest.h"
#include "shape_ranges.h"

using namespace edgeprune;

namespace {

void print(const Manifest& manifest, const GraphSpec& graph, const MethodSpec* method) {
    for (const InputRange& range : input_ranges(manifest, graph, method)) {
        std::printf("%s %s %s %s %s\n", graph.file.c_str(), range.name.c_str(), shape_text(range.least).c_str(),
                    shape_text(range.usual).c_str(), shape_text(range.most).c_str());
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    std::ifstream file(argv[1]);
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const Manifest manifest = parse_manifest(text);
    for (const auto& [name, stages] : manifest.vision) {
        for (const GraphSpec& stage : stages) print(manifest, stage, &manifest.methods.at(name));
    }
    print(manifest, manifest.embedding, nullptr);
    print(manifest, manifest.decoder, nullptr);
}
