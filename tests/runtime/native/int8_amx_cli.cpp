// Driven by tests/runtime/test_int8_kernels.py: the form of the int8 product for AMX with plain code in the place of
// its instructions, written from their description in the Intel 64 and IA-32 Architectures Software Developer's Manual
// (LDTILECFG, TILELOADD, TDPBSUD, TILESTORED), compared with sums one by one. No processor with AMX is needed.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "int8_kernels.h"

namespace emulated {

struct Tile {
    int64_t rows = 0, bytes = 0;
    std::array<std::array<uint8_t, 64>, 16> data{};
};
std::array<Tile, 8> tiles;
bool configured = false;

[[noreturn]] void fault(const char* what) {
    std::printf("%s\n", what);
    std::exit(3);
}

void configure(const void* from) {
    const auto* const bytes = static_cast<const uint8_t*>(from);
    if (bytes[0] != 1) fault("another palette");
    for (int i = 1; i < 16; ++i) {
        if (bytes[i] != 0) fault("a reserved byte is set");
    }
    for (size_t i = 0; i < 16; ++i) {
        uint16_t columns;
        std::memcpy(&columns, bytes + 16 + 2 * i, sizeof columns);
        const int64_t rows = bytes[48 + i];
        if (i >= 8 ? columns != 0 || rows != 0 : columns > 64 || rows > 16) fault("a tile is too large");
        if ((columns == 0) != (rows == 0)) fault("rows without columns");
        if (i < 8) tiles[i] = Tile{rows, columns, {}};
    }
    configured = true;
}

Tile& used(int index) {
    if (!configured) fault("not configured");
    if (tiles[static_cast<size_t>(index)].rows == 0) fault("a tile that was not configured");
    return tiles[static_cast<size_t>(index)];
}

void load(int index, const void* from, int64_t stride) {
    Tile& tile = used(index);
    tile.data = {};
    for (int64_t row = 0; row < tile.rows; ++row)
        std::memcpy(tile.data[static_cast<size_t>(row)].data(), static_cast<const char*>(from) + row * stride,
                    static_cast<size_t>(tile.bytes));
}

void store(int index, void* to, int64_t stride) {
    const Tile& tile = used(index);
    for (int64_t row = 0; row < tile.rows; ++row)
        std::memcpy(static_cast<char*>(to) + row * stride, tile.data[static_cast<size_t>(row)].data(),
                    static_cast<size_t>(tile.bytes));
}

// Signed bytes of `left` times unsigned bytes of `right`, four at a time, added to 32 bits.
void multiply(int sums, int left, int right) {
    Tile &c = used(sums), &a = used(left), &b = used(right);
    if (c.rows != a.rows || c.bytes != b.bytes || a.bytes / 4 != b.rows) fault("tiles of shapes that do not fit");
    for (size_t m = 0; m < static_cast<size_t>(c.rows); ++m) {
        for (size_t n = 0; n < static_cast<size_t>(c.bytes) / 4; ++n) {
            int32_t sum;
            std::memcpy(&sum, &c.data[m][4 * n], sizeof sum);
            for (size_t k = 0; k < static_cast<size_t>(a.bytes); ++k)
                sum += static_cast<int8_t>(a.data[m][k]) * int32_t{b.data[k / 4][4 * n + k % 4]};
            std::memcpy(&c.data[m][4 * n], &sum, sizeof sum);
        }
    }
}

void release() {
    configured = false;
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_release
#define _tile_loadconfig(from) emulated::configure(from)
#define _tile_loadd(tile, from, stride) emulated::load(tile, from, stride)
#define _tile_stored(tile, to, stride) emulated::store(tile, to, stride)
#define _tile_dpbsud(sums, left, right) emulated::multiply(sums, left, right)
#define _tile_release() emulated::release()

namespace edgeprune::int8 {
#define EDGEPRUNE_AMX
#include "int8_amx.h"
}  // namespace edgeprune::int8

int main() {
    using namespace edgeprune::int8;
    std::mt19937 random(3);
    std::uniform_int_distribution<int> byte(0, 255), start(-1000000, 1000000);
    for (const int64_t depth : {64, 192}) {
        const int64_t stride = depth + 64;
        std::vector<uint8_t> whole(static_cast<size_t>(kMost * stride)), weights(static_cast<size_t>(depth * kPanel));
        for (uint8_t& each : whole) each = static_cast<uint8_t>(byte(random));
        for (uint8_t& each : weights) each = static_cast<uint8_t>(byte(random));
        for (int64_t count = 1; count <= kMost; ++count) {
            std::vector<int32_t> sums(static_cast<size_t>(count * kPanel));
            for (int32_t& each : sums) each = start(random);
            std::vector<int32_t> wanted = sums;
            for (int64_t row = 0; row < count; ++row) {
                for (int64_t column = 0; column < kPanel; ++column) {
                    for (int64_t k = 0; k < depth; ++k)
                        wanted[row * kPanel + column] += static_cast<int8_t>(whole[row * stride + k]) *
                                                         int32_t{weights[k / 4 * 128 + column * 4 + k % 4]};
                }
            }
            const Panel panel{nullptr, nullptr, nullptr, 0, weights.data(), depth / kGroup, nullptr, 0};
            add({whole.data(), stride, count, nullptr}, panel, sums.data());
            if (sums != wanted || emulated::configured) {
                std::printf("%ld rows of %ld\n", static_cast<long>(count), static_cast<long>(depth));
                return 1;
            }
        }
    }
    return 0;
}
