// What the forms of int8_kernels.h have in common: rounding a row, and what stands before and behind the products. It
// is inlined into functions of every instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "int8_kernels.h"
#include "vector_math.h"

namespace edgeprune::int8 {
namespace {

using vector_math::Vectors;

constexpr int64_t kLine = kPanel * kGroup;  // bytes of a panel's weights that are taken at a time
constexpr int32_t kRaised = 128;            // what is added to a stored weight
constexpr float kNothing = 1e-30F;          // a step whose reciprocal may be infinite counts as 0
constexpr float kRounder = 12582912.0F;     // 1.5 * 2^23: adding it leaves whole numbers, in the lowest bits

// The least and the largest number of a row and of 0; both NaN where one is no finite number.
template <int kBytes>
EDGEPRUNE_INLINE void range_of(const float* row, int64_t count, float& least, float& largest) {
    using Lanes = typename Vectors<kBytes>::Lanes;
    constexpr int64_t kLanes = Vectors<kBytes>::kLanes;
    Lanes low{}, high{}, nothing{};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        const Lanes x = *reinterpret_cast<const Lanes*>(row + i);
        low = x < low ? x : low;
        high = x > high ? x : high;
        nothing += x * 0.0F;  // NaN where one is no finite number
    }
    float none = 0;
    least = largest = 0;
    for (; i < count; ++i) {
        least = std::min(least, row[i]);
        largest = std::max(largest, row[i]);
        none += row[i] * 0.0F;
    }
    for (int64_t k = 0; k < kLanes; ++k) {
        least = std::min(least, low[k]);
        largest = std::max(largest, high[k]);
        none += nothing[k];
    }
    if (none != 0) least = largest = std::numeric_limits<float>::quiet_NaN();
}

// The whole numbers of a row; returns their sum.
template <int kBytes>
EDGEPRUNE_INLINE int32_t round_all(const float* row, int64_t count, float factor, float zero, uint8_t* whole) {
    using Lanes = typename Vectors<kBytes>::Lanes;
    using Whole = typename Vectors<kBytes>::Whole;
    using Bytes = typename Vectors<kBytes>::Bytes;
    constexpr int64_t kLanes = Vectors<kBytes>::kLanes;
    Whole sums{};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        Lanes x = (*reinterpret_cast<const Lanes*>(row + i) * factor + kRounder) - kRounder + zero;
        x = x < -128.0F ? Lanes{} - 128.0F : x;
        x = x > 127.0F ? Lanes{} + 127.0F : x;
        const Whole each = __builtin_convertvector(x, Whole);
        sums += each;
        *reinterpret_cast<Bytes*>(whole + i) = __builtin_convertvector(each, Bytes);
    }
    int32_t total = 0;
    for (int64_t k = 0; k < kLanes; ++k) total += sums[k];
    for (; i < count; ++i) {
        const float x = (row[i] * factor + kRounder) - kRounder + zero;
        const auto each = static_cast<int32_t>(std::clamp(x, -128.0F, 127.0F));
        total += each;
        whole[i] = static_cast<uint8_t>(each);
    }
    return total;
}

template <int kBytes>
EDGEPRUNE_INLINE Rounded round_row(const float* row, int64_t count, uint8_t* whole) {
    float least, largest;
    range_of<kBytes>(row, count, least, largest);
    const float step = largest / 255 - least / 255;  // no sum of two finite numbers that overflows
    if (!(step > kNothing)) {
        std::memset(whole, 0, static_cast<size_t>(count));
        return {step >= 0 ? 0 : std::numeric_limits<float>::quiet_NaN(), 0, 0};
    }
    const float factor = 1 / step;
    const float zero = std::clamp(std::nearbyint(-128 - least * factor), -128.0F, 127.0F);
    const int32_t total = round_all<kBytes>(row, count, factor, zero, whole);
    return {step, static_cast<int32_t>(zero), total};
}

// What the products' sums begin with, so that they end as those of (whole - zero) and the weights.
template <int kBytes>
EDGEPRUNE_INLINE void begin(const Rows& rows, const Panel& panel, int32_t raised, int32_t* sums) {
    using Whole = typename Vectors<kBytes>::Whole;
    for (int64_t row = 0; row < rows.count; ++row) {
        const Rounded& by = rows.rounded[row];
        for (int64_t i = 0; i < kPanel; i += Vectors<kBytes>::kLanes) {
            const Whole columns = *reinterpret_cast<const Whole*>(panel.sums + i);
            *reinterpret_cast<Whole*>(sums + row * kPanel + i) = columns * -by.zero - raised * by.total;
        }
    }
}

// y / (1 + e^(-swish y)), by the exponential of what is not positive.
template <int kBytes>
EDGEPRUNE_INLINE void activate(typename Vectors<kBytes>::Lanes& y, float swish) {
    using Lanes = typename Vectors<kBytes>::Lanes;
    const Lanes z = y * swish;
    Lanes small = z < Lanes{} ? z : -z;
    vector_math::exponential<Lanes, typename Vectors<kBytes>::Whole>(small);
    y = y * (z < Lanes{} ? small : Lanes{} + 1.0F) / (small + 1.0F);
}

template <int kBytes>
EDGEPRUNE_INLINE void finish(const Rows& rows, const Panel& panel, const int32_t* sums, float* to, int64_t stride) {
    using Lanes = typename Vectors<kBytes>::Lanes;
    using Whole = typename Vectors<kBytes>::Whole;
    for (int64_t row = 0; row < rows.count; ++row) {
        const float step = rows.rounded[row].step;
        for (int64_t i = 0; i < kPanel; i += Vectors<kBytes>::kLanes) {
            const auto whole = *reinterpret_cast<const Whole*>(sums + row * kPanel + i);
            const Lanes factors = *reinterpret_cast<const Lanes*>(panel.factors + i) * step;
            Lanes y = __builtin_convertvector(whole, Lanes) * factors + *reinterpret_cast<const Lanes*>(panel.bias + i);
            if (panel.swish != 0) activate<kBytes>(y, panel.swish);
            *reinterpret_cast<Lanes*>(to + row * stride + i) = y;
        }
    }
}

[[maybe_unused]] EDGEPRUNE_INLINE int32_t four_of(const uint8_t* whole) {
    int32_t four;
    std::memcpy(&four, whole, sizeof four);
    return four;
}

}  // namespace
}  // namespace edgeprune::int8
