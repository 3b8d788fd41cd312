// What int8_product.h is made of: inputs rounded row by row, and a few rows times a panel of 32 columns, in one form
// per instruction set. Sums are whole numbers, so every form gives the same ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeprune::int8 {

constexpr int64_t kPanel = 32;  // columns that lie side by side
constexpr int64_t kGroup = 4;   // rows of the weights whose numbers lie side by side
constexpr int64_t kDeep = 64;   // the depth is filled up to a multiple of this
constexpr int64_t kMost = 32;   // rows that any form takes at a time

// One row of inputs as whole numbers: input = step * (whole - zero).
struct Rounded {
    float step;     // NaN where an input is no finite number
    int32_t zero;   // -128 to 127
    int32_t total;  // of all whole numbers
};

struct Rows {
    const uint8_t* whole;  // (count,stride), of each row the depth filled up with 0
    int64_t stride;        // in bytes
    int64_t count;
    const Rounded* rounded;  // (count)
};

struct Panel {
    const float* factors;    // (32): weight = factor * whole number
    const int32_t* sums;     // (32) of the whole numbers of a column
    const float* bias;       // (32)
    float swish;             // not 0: a result y becomes y / (1 + e^(-swish y))
    const uint8_t* weights;  // (groups,32,4), whole number + 128
    int64_t groups;          // a multiple of 16
    const uint8_t* ahead;    // what comes next and may be fetched meanwhile
    int64_t ahead_bytes;     // of it
};

// How one instruction set does it.
struct Form {
    const char* name;
    int64_t most;  // rows at a time
    // Numbers (count) to whole (count).
    Rounded (*round)(const float* row, int64_t count, uint8_t* whole);
    // 1 to `most` rows times a panel, to (count,32) whose rows lie `stride` numbers apart.
    void (*multiply)(const Rows& rows, const Panel& panel, float* to, int64_t stride);
};

enum class Instructions { chosen, amx, avx512_vnni, avx_vnni, avx2, dot_product, portable };

// The best form that the processor has, or the one asked for; null where the processor lacks that.
const Form* form(Instructions instructions = Instructions::chosen) noexcept;

}  // namespace edgeprune::int8
