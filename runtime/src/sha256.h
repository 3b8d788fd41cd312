// SHA-256 (FIPS 180-4) of a bundle's files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace edgeprune {

// Lower-case hexadecimal digest of a whole file, read in pieces. Throws Error(EP_ERROR_IO).
std::string sha256_file(const std::string& path);

// Folds `count` blocks of 64 bytes into the eight words of `state`.
using Sha256Compress = void (*)(uint32_t* state, const uint8_t* blocks, size_t count);
void sha256_compress_portable(uint32_t* state, const uint8_t* blocks, size_t count);
// The processor's SHA instructions where it has them (x86), else the portable function.
Sha256Compress sha256_compress_fastest();

class Sha256 {
public:
    explicit Sha256(Sha256Compress compress = sha256_compress_fastest()) : compress_(compress) {}
    void update(const uint8_t* data, size_t size);
    // Ends the message; call it once.
    std::string hex();

private:
    Sha256Compress compress_;
    std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<uint8_t, 64> pending_{};
    size_t pending_size_ = 0;
    uint64_t total_bytes_ = 0;
};

}  // namespace edgeprune
