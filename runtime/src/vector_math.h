// Functions of every lane of a vector, for code that is compiled for several instruction sets: they are inlined into
// the function that chooses one.
#pragma once

#include <cstdint>
#include <cstring>

// Inlined into functions of every instruction set, and compiled for it there.
#define EDGEPRUNE_INLINE __attribute__((always_inline)) static inline

namespace edgeprune::vector_math {

// As many numbers as kBytes hold in floats, aligned to single ones: 16, 32 or 64. Compilers differ in what they make of
// a size that depends on a template's parameter.
template <int kBytes>
struct Vectors;
template <>
struct Vectors<16> {
    using Lanes = float __attribute__((vector_size(16), aligned(4), may_alias));
    using Whole = int32_t __attribute__((vector_size(16), aligned(4), may_alias));
    using Bits = uint32_t __attribute__((vector_size(16), aligned(4), may_alias));
    using Bytes = uint8_t __attribute__((vector_size(4), aligned(1), may_alias));
    static constexpr int64_t kLanes = 4;
};
template <>
struct Vectors<32> {
    using Lanes = float __attribute__((vector_size(32), aligned(4), may_alias));
    using Whole = int32_t __attribute__((vector_size(32), aligned(4), may_alias));
    using Bits = uint32_t __attribute__((vector_size(32), aligned(4), may_alias));
    using Bytes = uint8_t __attribute__((vector_size(8), aligned(1), may_alias));
    static constexpr int64_t kLanes = 8;
};
template <>
struct Vectors<64> {
    using Lanes = float __attribute__((vector_size(64), aligned(4), may_alias));
    using Whole = int32_t __attribute__((vector_size(64), aligned(4), may_alias));
    using Bits = uint32_t __attribute__((vector_size(64), aligned(4), may_alias));
    using Bytes = uint8_t __attribute__((vector_size(16), aligned(1), may_alias));
    static constexpr int64_t kLanes = 16;
};

// e^x for x <= 0, within 2 units in the last place; below -87 it is 0. x = n ln 2 + r, |r| <= ln 2 / 2, and the Taylor
// polynomial of e^r. Whole: as many int32.
template <class Lanes, class Whole>
EDGEPRUNE_INLINE void exponential(Lanes& x) {
    const Lanes floor = Lanes{} - 87.0F;
    const Whole kept = x > floor;
    const Lanes bounded = kept ? x : floor;
    const float rounder = 12582912.0F;  // 1.5 * 2^23: adding it leaves whole numbers
    const Lanes n = (bounded * 1.44269504F + rounder) - rounder;
    const Lanes r = (bounded - n * 0.693359375F) + n * 2.12194440e-4F;
    Lanes sum = r * (1.0F / 5040) + 1.0F / 720;
    sum = sum * r + 1.0F / 120;
    sum = sum * r + 1.0F / 24;
    sum = sum * r + 1.0F / 6;
    sum = sum * r + 0.5F;
    sum = sum * r + 1.0F;
    sum = sum * r + 1.0F;
    const Whole exponent = (__builtin_convertvector(n, Whole) + 127) << 23;
    Lanes power;
    std::memcpy(&power, &exponent, sizeof power);
    x = kept ? sum * power : Lanes{};
}

}  // namespace edgeprune::vector_math
