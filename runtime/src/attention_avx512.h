// A block of 8 rows of queries on vectors of 16 lanes; attention_kernel.cpp includes this file. Logits: the lanes are 8
// queries times 2 neighbouring numbers of their depth, and a key's two numbers are broadcast together. Softmax: 2
// places times 8 queries. Values: 16 columns of each row. Every array of vectors is walked by loops that are unrolled:
// gcc 12 leaves it in memory otherwise.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#define EDGEPRUNE_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))

namespace edgeprune::attention {
namespace {
namespace avx512 {

constexpr int64_t kLanes = 16;
constexpr int64_t kKeys = 16;     // that are multiplied at a time; with 8 each sum waits for the one before it
constexpr int64_t kWidest = 256;  // head width

EDGEPRUNE_AVX512 inline __m512 load(const float* from) {
    return _mm512_loadu_ps(from);
}

EDGEPRUNE_AVX512 inline __m512 load(const Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

// Two neighbouring floats in all pairs of lanes.
EDGEPRUNE_AVX512 inline __m512 broadcast_pair(const float* from) {
    double both;
    std::memcpy(&both, from, sizeof both);
    return _mm512_castpd_ps(_mm512_set1_pd(both));
}

// One prefetch for each line of the processor's cache.
template <int64_t kCount, class Element>
EDGEPRUNE_AVX512 inline void prefetch(const Element* from) {
    constexpr int64_t kLine = 64 / sizeof(Element);
#pragma GCC unroll 4
    for (int64_t i = 0; i < kCount; i += kLine) __builtin_prefetch(from + i);
}

// e^x for x <= 0, as the other forms have it.
EDGEPRUNE_AVX512 inline __m512 exponential(__m512 x) {
    const __m512 floor = _mm512_set1_ps(-87.0F);
    const __mmask16 kept = _mm512_cmp_ps_mask(x, floor, _CMP_GT_OQ);
    x = _mm512_max_ps(x, floor);
    const __m512 n = _mm512_roundscale_ps(x * _mm512_set1_ps(1.44269504F), _MM_FROUND_TO_NEAREST_INT);
    const __m512 r =
        _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4F), _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), x));
    constexpr float kTaylor[] = {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1, 1};
    __m512 sum = _mm512_set1_ps(1.0F / 5040);
#pragma GCC unroll 7
    for (const float factor : kTaylor) sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(factor));
    return _mm512_maskz_scalef_ps(kept, sum, n);
}

// Numbers of (d,8) in the order (d/2,8,2).
EDGEPRUNE_AVX512 inline void pair_up(const float* query, int64_t width, float* pairs) {
    const __m512i order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    for (int64_t i = 0; i < width * kRows; i += kLanes) {
        _mm512_store_ps(pairs + i, _mm512_permutexvar_ps(order, _mm512_loadu_ps(query + i)));
    }
}

// Of 16 keys, the last of them repeated where there are fewer, `columns` numbers each as floats. Key by key inside,
// because gcc makes a slow string instruction of the other order where they are floats already.
template <class Element>
EDGEPRUNE_AVX512 inline void widen(const Element* keys, int64_t count, int64_t columns, int64_t width, float* room) {
    for (int64_t i = 0; i < columns; i += kLanes) {
        for (int64_t k = 0; k < kKeys; ++k) {
            const Element* const key = keys + std::min(k, count - 1) * width;
            _mm512_store_ps(room + k * kColumns + i, load(key + i));
        }
    }
}

// Adds products of 16 widened keys with the pairs of the queries. Meanwhile as much is fetched from `ahead`: spread
// over the loop, since requests beyond what the processor can have open hold it up.
template <class Element>
EDGEPRUNE_AVX512 inline void add_products(const float* keys, int64_t columns, const float* pairs, const Element* ahead,
                                          __m512 (&sums)[kKeys]) {
    for (int64_t i = 0; i < columns; i += 2) {
        const __m512 query = _mm512_load_ps(pairs + i * kRows);
        prefetch<2 * kKeys>(ahead + i * kKeys);
#pragma GCC unroll 16
        for (int64_t k = 0; k < kKeys; ++k) {
            sums[k] = _mm512_fmadd_ps(query, broadcast_pair(keys + k * kColumns + i), sums[k]);
        }
    }
}

// Adds the two lanes of each pair: first those of `first`, then those of `second`.
EDGEPRUNE_AVX512 inline __m512 joined(__m512 first, __m512 second) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(first, even, second) + _mm512_permutex2var_ps(first, odd, second);
}

// Logits of `count` keys (count,d) with the queries, to (count to the next multiple of 16,8). Meanwhile as many rows
// are fetched from `ahead`.
template <class Element>
EDGEPRUNE_AVX512 inline void logits_of(const Element* keys, int64_t count, int64_t width, const float* pairs,
                                       const Element* ahead, float* logits) {
    alignas(64) float room[kKeys * kColumns];
    for (int64_t j = 0; j < count; j += kKeys) {
        __m512 sums[kKeys];
#pragma GCC unroll 16
        for (__m512& sum : sums) sum = _mm512_setzero_ps();
        for (int64_t first = 0; first < width; first += kColumns) {
            const int64_t columns = std::min(width - first, kColumns);
            widen(keys + j * width + first, count - j, columns, width, room);
            add_products(room, columns, pairs + first * kRows, ahead + j * width + first * kKeys, sums);
        }
#pragma GCC unroll 8
        for (int64_t k = 0; k < kKeys; k += 2) {
            _mm512_store_ps(logits + (j + k) * kRows, joined(sums[k], sums[k + 1]));
        }
    }
}

// Adds weights (count,8), of a single row (count), times `kVectors` times 16 columns of values (count,d) to `kHeld`
// rows of sums (8,d), which are multiplied by `shrink` first. Meanwhile as much is fetched from `ahead`.
template <int64_t kHeld, int64_t kVectors, class Element>
EDGEPRUNE_AVX512 inline void add_columns(const Element* values, int64_t count, int64_t width, const float* weights,
                                         const float* shrink, float* sums, const Element* ahead) {
    constexpr int64_t kStep = kHeld == 1 ? 1 : kRows;
    __m512 s[kHeld][kVectors];
#pragma GCC unroll 16
    for (int64_t row = 0; row < kHeld; ++row) {
#pragma GCC unroll 8
        for (int64_t v = 0; v < kVectors; ++v) {
            s[row][v] = _mm512_loadu_ps(sums + row * width + v * kLanes) * _mm512_set1_ps(shrink[row]);
        }
    }
    for (int64_t j = 0; j < count; ++j) {
        __m512 value[kVectors];
#pragma GCC unroll 8
        for (int64_t v = 0; v < kVectors; ++v) value[v] = load(values + j * width + v * kLanes);
        prefetch<kVectors * kLanes>(ahead + j * kVectors * kLanes);
#pragma GCC unroll 16
        for (int64_t row = 0; row < kHeld; ++row) {
            const __m512 weight = _mm512_set1_ps(weights[j * kStep + row]);
#pragma GCC unroll 8
            for (int64_t v = 0; v < kVectors; ++v) s[row][v] = _mm512_fmadd_ps(value[v], weight, s[row][v]);
        }
    }
#pragma GCC unroll 16
    for (int64_t row = 0; row < kHeld; ++row) {
#pragma GCC unroll 8
        for (int64_t v = 0; v < kVectors; ++v) _mm512_storeu_ps(sums + row * width + v * kLanes, s[row][v]);
    }
}

template <class Element>
EDGEPRUNE_AVX512 inline void add_values(const Element* values, int64_t count, int64_t width, const float* weights,
                                        int64_t rows, const float* shrink, float* sums, const Element* ahead) {
    int64_t i = 0;
    if (rows <= 4) {
        for (; i + 64 <= width; i += 64)
            add_columns<4, 4>(values + i, count, width, weights, shrink, sums + i, ahead + i * count);
    }
    for (; i + 32 <= width; i += 32)
        add_columns<8, 2>(values + i, count, width, weights, shrink, sums + i, ahead + i * count);
    if (i < width) add_columns<8, 1>(values + i, count, width, weights, shrink, sums + i, ahead + i * count);
}

// Of each lane and the one 8 further: their maximum in both, then the same with their sum.
EDGEPRUNE_AVX512 inline __m512 largest_of_halves(__m512 x) {
    return _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, 0x4e));
}

EDGEPRUNE_AVX512 inline __m512 sum_of_halves(__m512 x) {
    return x + _mm512_shuffle_f32x4(x, x, 0x4e);
}

// Weights (count,8) of places from `first` on that a row does not see become those of nothing.
EDGEPRUNE_AVX512 inline void hide(float* weights, int64_t count, int64_t first, __m512i limits) {
    const __m512i own = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    for (int64_t j = 0; j < count; j += 2) {
        const __m512i place = _mm512_add_epi32(own, _mm512_set1_epi32(static_cast<int32_t>(first + j)));
        const __mmask16 seen = _mm512_cmpgt_epi32_mask(limits, place);
        float* const at = weights + j * kRows;
        _mm512_store_ps(at, _mm512_mask_mov_ps(_mm512_set1_ps(kHidden), seen, _mm512_load_ps(at)));
    }
}

// What the rows of a block have found so far, in both halves.
struct Found {
    __m512 largest, total;
};

// The larger of two; what is no number counts as nothing, as in the other forms.
EDGEPRUNE_AVX512 inline __m512 larger(__m512 found, __m512 fresh) {
    return _mm512_max_ps(fresh, found);
}

// Logits (count,8), an even number, become weights. Returns what the sums so far are to be multiplied by.
EDGEPRUNE_AVX512 inline __m512 soften(float* weights, int64_t count, Found& found) {
    __m512 peak = found.largest;
    for (int64_t j = 0; j < count; j += 2) peak = larger(peak, _mm512_load_ps(weights + j * kRows));
    peak = largest_of_halves(peak);
    const __m512 shrink = exponential(found.largest - peak);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t j = 0; j < count; j += 2) {
        const __m512 weight = exponential(_mm512_load_ps(weights + j * kRows) - peak);
        _mm512_store_ps(weights + j * kRows, weight);
        sum += weight;
    }
    found = {peak, found.total * shrink + sum_of_halves(sum)};
    return shrink;
}

constexpr bool takes(int64_t width) {
    return width % kLanes == 0 && width <= kWidest;
}

// The same as run_block of attention_body.h, for a width that is taken.
template <class Element>
EDGEPRUNE_AVX512 void run_block(const Block& block, const Element* keys, const Element* values, int64_t begin,
                                int64_t end, int64_t width) {
    alignas(64) float pairs[kWidest * kRows], weights[kTile * kRows], shrink[kLanes], state[2][kLanes];
    pair_up(block.query, width, pairs);
    const __m256i once = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.limits));
    const __m512i limits = _mm512_maskz_broadcast_i32x8(0xffff, once);  // unmasked, gcc 12 warns of its own header
    Found found{_mm512_set1_ps(kNothingSeen), _mm512_setzero_ps()};
    for (int64_t first = begin; first < end; first += kTile) {
        const int64_t count = std::min(end - first, kTile), padded = (count + kKeys - 1) / kKeys * kKeys;
        logits_of(keys + first * width, count, width, pairs, values + first * width, weights);
        // The keys that are repeated behind the last place are seen by nobody.
        if (first + padded > block.seen_by_all) hide(weights, padded, first, limits);
        _mm512_store_ps(shrink, soften(weights, padded, found));
        add_values(values + first * width, count, width, weights, block.rows, shrink, block.sums,
                   keys + (first + kTile) * width);
    }
    _mm512_store_ps(state[0], found.largest);
    _mm512_store_ps(state[1], found.total);
    for (int64_t row = 0; row < block.rows; ++row) {
        block.state[2 * row] = state[0][row];
        block.state[2 * row + 1] = state[1][row];
    }
}

}  // namespace avx512
}  // namespace
}  // namespace edgeprune::attention
