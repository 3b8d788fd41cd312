// Driven by tests/runtime/test_sha256.py: one path per line in, one line out: the digest of sha256_file, then the
// digest of the portable code fed in pieces of 1, 2, 3 ... bytes. An error gives one line that begins with "error ".
#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "error.h"
#include "sha256.h"

namespace {

std::string portable(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    edgeprune::Sha256 digest(edgeprune::sha256_compress_portable);
    size_t step = 1;
    for (size_t at = 0; at < bytes.size(); at += step++) {
        digest.update(reinterpret_cast<const uint8_t*>(bytes.data()) + at, std::min(step, bytes.size() - at));
    }
    return digest.hex();
}

}  // namespace

int main() {
    for (std::string path; std::getline(std::cin, path);) {
        try {
            std::cout << edgeprune::sha256_file(path) << ' ' << portable(path) << std::endl;
        } catch (const edgeprune::Error& error) {
            std::cout << "error " << error.status() << ' ' << error.what() << std::endl;
        }
    }
}
