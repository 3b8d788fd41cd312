// A row of queries that is alone on vectors of 16 lanes, which are 16 columns, or 16 places in the softmax;
// attention_kernel.cpp includes this file.
#pragma once

#include <algorithm>
#include <numeric>

#include "attention_avx512.h"

namespace edgeprune::attention {
namespace {
namespace avx512 {

// Four sums of products for each of 4 keys from `first` on with one query; behind the last key it is read again.
template <class Element>
EDGEPRUNE_AVX512 inline __m512 quarters(const Element* keys, int64_t first, int64_t count, int64_t width,
                                        const float* query) {
    const Element* key[4];
    __m512 sums[4];
#pragma GCC unroll 4
    for (int64_t k = 0; k < 4; ++k) {
        key[k] = keys + std::min(first + k, count - 1) * width;
        sums[k] = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < width; i += kLanes) {
        const __m512 part = _mm512_loadu_ps(query + i);
#pragma GCC unroll 4
        for (int64_t k = 0; k < 4; ++k) sums[k] = _mm512_fmadd_ps(part, load(key[k] + i), sums[k]);
    }
    return joined(joined(sums[0], sums[1]), joined(sums[2], sums[3]));
}

// Logits of `count` keys (count,d) with one query (d), those of nothing up to the next multiple of 16. Meanwhile as
// many rows are fetched from `ahead`.
template <class Element>
EDGEPRUNE_AVX512 inline void logits_of_one(const Element* keys, int64_t count, int64_t width, const float* query,
                                           const Element* ahead, float* logits) {
    for (int64_t j = 0; j < count; j += kLanes) {
        __m512 parts[4];
#pragma GCC unroll 4
        for (int64_t k = 0; k < 4; ++k) {
            for (int64_t i = 0; i < width; i += kLanes) prefetch<4 * kLanes>(ahead + (j + 4 * k) * width + 4 * i);
            parts[k] = quarters(keys, j + 4 * k, count, width, query);
        }
        const __m512 sixteen = joined(joined(parts[0], parts[1]), joined(parts[2], parts[3]));
        const auto kept = static_cast<__mmask16>(count - j < kLanes ? (1U << (count - j)) - 1 : 0xffffU);
        _mm512_store_ps(logits + j, _mm512_mask_mov_ps(_mm512_set1_ps(kHidden), kept, sixteen));
    }
}

// The same as soften for the logits (count) of one row, a multiple of 16; `found` has one total for each lane.
EDGEPRUNE_AVX512 inline __m512 soften_one(float* weights, int64_t count, Found& found) {
    __m512 peaks = found.largest;
    for (int64_t j = 0; j < count; j += kLanes) peaks = larger(peaks, _mm512_load_ps(weights + j));
    const __m512 peak = _mm512_set1_ps(_mm512_reduce_max_ps(peaks));
    const __m512 shrink = exponential(found.largest - peak);
    found = {peak, found.total * shrink};
    for (int64_t j = 0; j < count; j += kLanes) {
        const __m512 weight = exponential(_mm512_load_ps(weights + j) - peak);
        _mm512_store_ps(weights + j, weight);
        found.total += weight;
    }
    return shrink;
}

template <class Element>
EDGEPRUNE_AVX512 inline void add_values_of_one(const Element* values, int64_t count, int64_t width,
                                               const float* weights, const float* shrink, float* sums,
                                               const Element* ahead) {
    int64_t i = 0;
    for (; i + 64 <= width; i += 64)
        add_columns<1, 4>(values + i, count, width, weights, shrink, sums + i, ahead + i * count);
    for (; i < width; i += kLanes)
        add_columns<1, 1>(values + i, count, width, weights, shrink, sums + i, ahead + i * count);
}

// The same as run_row of attention_body.h, for a width that is taken.
template <class Element>
EDGEPRUNE_AVX512 void run_row(const Block& block, const Element* keys, const Element* values, int64_t begin,
                              int64_t end, int64_t width) {
    alignas(64) float weights[kTile], shrink[kLanes], totals[kLanes];
    Found found{_mm512_set1_ps(kNothingSeen), _mm512_setzero_ps()};
    for (int64_t first = begin; first < end; first += kTile) {
        const int64_t count = std::min(end - first, kTile), padded = (count + kLanes - 1) / kLanes * kLanes;
        logits_of_one(keys + first * width, count, width, block.query, values + first * width, weights);
        _mm512_store_ps(shrink, soften_one(weights, padded, found));
        add_values_of_one(values + first * width, count, width, weights, shrink, block.sums,
                          keys + (first + kTile) * width);
    }
    block.state[0] = _mm512_cvtss_f32(found.largest);
    _mm512_store_ps(totals, found.total);
    block.state[1] = std::accumulate(totals, totals + kLanes, 0.0F);
}

}  // namespace avx512
}  // namespace
}  // namespace edgeprune::attention
