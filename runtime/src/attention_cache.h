// What the operators that attend over a cache of fixed capacity have in common: checks, and writing a row into it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "attention_kernel.h"
#include "own_op.h"

namespace edgeprune::attention {

constexpr size_t bytes_of(Stored stored) {
    return stored == Stored::float16 ? sizeof(Half) : sizeof(float);
}

// Element types of an operator whose inputs `past_key` and `past_value` are the cache and whose first output is not.
template <Stored stored, size_t past_key, size_t past_value, size_t positions>
struct CacheTypes {
    static constexpr int32_t kCache = stored == Stored::float16 ? ort::kFloat16 : ort::kFloat32;
    static int32_t input_type(size_t index) {
        if (index == past_key || index == past_value) return kCache;
        return index == positions ? ort::kInt64 : ort::kFloat32;
    }
    static int32_t output_type(size_t index) { return index == 0 ? ort::kFloat32 : kCache; }
};

// Refuses positions (B,T) that are outside a cache of so many places.
inline void require_positions(const own_op::Call& call, const own_op::Tensor& positions, int64_t places) {
    const auto* position = static_cast<const int64_t*>(positions.data);
    for (size_t i = 0; i < positions.elements(); ++i) {
        if (position[i] < 0 || position[i] >= places)
            call.refuse("position " + std::to_string(position[i]) + " is outside a cache of " + std::to_string(places));
    }
}

// Present, which is past unless both are one memory already.
template <Stored stored>
own_op::Tensor present_of(const own_op::Call& call, size_t output, const own_op::Tensor& past) {
    const own_op::Tensor present = call.output(output, past);
    if (present.data != past.data) std::memcpy(present.data, past.data, past.elements() * bytes_of(stored));
    return present;
}

// A row of `width` numbers to the place that begins `index` numbers into the cache; refuses what float16 cannot hold.
template <Stored stored>
void write_row(const own_op::Call& call, const float* from, int64_t width, void* cache, int64_t index) {
    void* const to = static_cast<char*>(cache) + static_cast<size_t>(index) * bytes_of(stored);
    if constexpr (stored == Stored::float32) {
        std::memcpy(to, from, static_cast<size_t>(width) * sizeof(float));
    } else if (!to_halves(from, width, static_cast<Half*>(to))) {
        const auto fits = [](float value) { return std::fabs(value) < kHalfEnd; };
        call.refuse(
            "a key or value of " + std::to_string(*std::find_if_not(from, from + width, fits)) +
            " does not fit a cache in float16, which ends at 65504; build the variant again with --kv-cache fp32");
    }
}

}  // namespace edgeprune::attention
