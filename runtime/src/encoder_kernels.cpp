#include "encoder_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "processor.h"
#include "vector_math.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "avx512_math.h"
#endif

namespace edgeprune::encoder {
namespace {

using vector_math::Vectors;

// The bits of a vector of floats rounded to bfloat16, which are the upper 16 of each; what is no number stays none.
template <int kBytes>
EDGEPRUNE_INLINE void round_bits(Word* at) {
    using Bits = typename Vectors<kBytes>::Bits;
    Bits& bits = *reinterpret_cast<Bits*>(at);
    const Bits up = bits + 0x7fffU + ((bits >> 16) & 1U);
    bits = ((bits & 0x7fffffffU) <= 0x7f800000U ? up : bits | 0x400000U) & 0xffff0000U;
}

EDGEPRUNE_INLINE void round_one(Word* at) {
    alignas(16) Word four[4]{*at, 0, 0, 0};
    round_bits<16>(four);
    *at = four[0];
}

// Floats as words of one number.
template <int kBytes>
EDGEPRUNE_INLINE void float_words(const float* row, int64_t count, float factor, Operands operands, Word* to) {
    for (int64_t i = 0; i < count; ++i) {
        const float value = row[i] * factor;
        std::memcpy(to + i, &value, sizeof value);
    }
    if (operands == Operands::float32) return;
    int64_t i = 0;
    for (; i + Vectors<kBytes>::kLanes <= count; i += Vectors<kBytes>::kLanes) round_bits<kBytes>(to + i);
    for (; i < count; ++i) round_one(to + i);
}

EDGEPRUNE_INLINE int64_t filled(int64_t count) {
    return (count + kStep - 1) / kStep * kStep;
}

// The largest of logits (count), which are filled up with what becomes 0.
template <int kBytes>
EDGEPRUNE_INLINE float largest_of(float* logits, int64_t count) {
    using Lanes = typename Vectors<kBytes>::Lanes;
    std::fill(logits + count, logits + filled(count), -INFINITY);
    Lanes most = Lanes{} - INFINITY;
    for (int64_t i = 0; i < count; i += Vectors<kBytes>::kLanes) {
        const Lanes& each = *reinterpret_cast<const Lanes*>(logits + i);
        most = each > most ? each : most;
    }
    float largest = most[0];
    for (int64_t k = 1; k < Vectors<kBytes>::kLanes; ++k) largest = std::max(largest, most[k]);
    return largest;
}

// e^(logits - largest) in their place, filled up as they are, and their sum.
template <int kBytes>
EDGEPRUNE_INLINE float exponentials(float* logits, int64_t count, float largest) {
    using Lanes = typename Vectors<kBytes>::Lanes;
    Lanes total{};
    for (int64_t i = 0; i < filled(count); i += Vectors<kBytes>::kLanes) {
        Lanes& at = *reinterpret_cast<Lanes*>(logits + i);
        Lanes x = at - largest;
        vector_math::exponential<Lanes, typename Vectors<kBytes>::Whole>(x);
        total += x;
        at = x;
    }
    float sum = 0;
    for (int64_t k = 0; k < Vectors<kBytes>::kLanes; ++k) sum += total[k];
    return sum;
}

template <int kBytes>
EDGEPRUNE_INLINE float float_weights(float* logits, int64_t count, Operands operands, Word* to) {
    const float sum = exponentials<kBytes>(logits, count, largest_of<kBytes>(logits, count));
    float_words<kBytes>(logits, filled(count), 1, operands, to);
    return sum;
}

namespace portable {

constexpr int64_t kRows = 4;
constexpr int64_t kVectors = 4;  // of four columns, half of a panel
using Four = Vectors<16>::Lanes;

void words(const float* row, int64_t count, float factor, Operands operands, Word* to) {
    float_words<16>(row, count, factor, operands, to);
}

void pairs(const float* first, const float*, int64_t count, Operands operands, Word* to) {
    float_words<16>(first, count, 1, operands, to);
}

float weights(float* logits, int64_t count, Operands operands, Word* to) {
    return float_weights<16>(logits, count, operands, to);
}

// kCount rows times half of a panel.
template <int64_t kCount>
void add(const Word* rows, int64_t stride, const Word* panel, int64_t words, float* to, int64_t to_stride) {
    Four sum[kCount][kVectors];
#pragma GCC unroll 4
    for (int64_t row = 0; row < kCount; ++row) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < kVectors; ++i) sum[row][i] = Four{};
    }
    for (int64_t word = 0; word < words; ++word, panel += kPanel) {
#pragma GCC unroll 4
        for (int64_t row = 0; row < kCount; ++row) {
            float number;
            std::memcpy(&number, rows + row * stride + word, sizeof number);
#pragma GCC unroll 4
            for (int64_t i = 0; i < kVectors; ++i)
                sum[row][i] += *reinterpret_cast<const Four*>(panel + 4 * i) * number;
        }
    }
#pragma GCC unroll 4
    for (int64_t row = 0; row < kCount; ++row) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < kVectors; ++i) *reinterpret_cast<Four*>(to + row * to_stride + 4 * i) = sum[row][i];
    }
}

void multiply(const Word* rows, int64_t count, int64_t stride, const Word* panel, int64_t words, float* to,
              int64_t to_stride) {
    constexpr std::array<decltype(&add<1>), kRows> kAdd{add<1>, add<2>, add<3>, add<4>};
    const auto run = kAdd[static_cast<size_t>(count - 1)];
    for (int64_t half = 0; half < kPanel; half += kPanel / 2)
        run(rows, stride, panel + half, words, to + half, to_stride);
}

constexpr Form kForm{"portable", kRows, 1, words, pairs, weights, multiply};

}  // namespace portable

#if defined(__x86_64__)
namespace avx2 {

#define EDGEPRUNE_AVX2 __attribute__((target("avx2,fma")))
constexpr int64_t kRows = 6;  // times two vectors of sums, of 16 registers

EDGEPRUNE_AVX2 void words(const float* row, int64_t count, float factor, Operands operands, Word* to) {
    float_words<32>(row, count, factor, operands, to);
}

EDGEPRUNE_AVX2 void pairs(const float* first, const float*, int64_t count, Operands operands, Word* to) {
    float_words<32>(first, count, 1, operands, to);
}

EDGEPRUNE_AVX2 float weights(float* logits, int64_t count, Operands operands, Word* to) {
    return float_weights<32>(logits, count, operands, to);
}

template <int64_t kCount>
EDGEPRUNE_AVX2 void add(const Word* rows, int64_t stride, const Word* panel, int64_t words, float* to,
                        int64_t to_stride) {
    __m256 sum[kCount][2];
#pragma GCC unroll 6
    for (int64_t row = 0; row < kCount; ++row) sum[row][0] = sum[row][1] = _mm256_setzero_ps();
    for (int64_t word = 0; word < words; ++word, panel += kPanel) {
        const __m256 left = _mm256_loadu_ps(reinterpret_cast<const float*>(panel));
        const __m256 right = _mm256_loadu_ps(reinterpret_cast<const float*>(panel + 8));
#pragma GCC unroll 6
        for (int64_t row = 0; row < kCount; ++row) {
            const __m256 number = _mm256_broadcast_ss(reinterpret_cast<const float*>(rows + row * stride + word));
            sum[row][0] = _mm256_fmadd_ps(left, number, sum[row][0]);
            sum[row][1] = _mm256_fmadd_ps(right, number, sum[row][1]);
        }
    }
#pragma GCC unroll 6
    for (int64_t row = 0; row < kCount; ++row) {
        _mm256_storeu_ps(to + row * to_stride, sum[row][0]);
        _mm256_storeu_ps(to + row * to_stride + 8, sum[row][1]);
    }
}

EDGEPRUNE_AVX2 void multiply(const Word* rows, int64_t count, int64_t stride, const Word* panel, int64_t words,
                             float* to, int64_t to_stride) {
    constexpr std::array<decltype(&add<1>), kRows> kAdd{add<1>, add<2>, add<3>, add<4>, add<5>, add<6>};
    const auto run = kAdd[static_cast<size_t>(count - 1)];
    for (int64_t half = 0; half < kPanel; half += kPanel / 2)
        run(rows, stride, panel + half, words, to + half, to_stride);
}

constexpr Form kForm{"avx2", kRows, 1, words, pairs, weights, multiply};
#undef EDGEPRUNE_AVX2

}  // namespace avx2

namespace avx512 {

#define EDGEPRUNE_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
constexpr int64_t kRows = 12;  // times two vectors of sums, of 32 registers
constexpr int64_t kLanes = 16;

EDGEPRUNE_AVX512 void words(const float* row, int64_t count, float factor, Operands operands, Word* to) {
    float_words<64>(row, count, factor, operands, to);
}

EDGEPRUNE_AVX512 void pairs(const float* first, const float*, int64_t count, Operands operands, Word* to) {
    float_words<64>(first, count, 1, operands, to);
}

EDGEPRUNE_AVX512 float weights(float* logits, int64_t count, Operands operands, Word* to) {
    return float_weights<64>(logits, count, operands, to);
}

template <int64_t kCount>
EDGEPRUNE_AVX512 void add(const Word* rows, int64_t stride, const Word* panel, int64_t words, float* to,
                          int64_t to_stride) {
    __m512 sum[kCount][2];
#pragma GCC unroll 12
    for (int64_t row = 0; row < kCount; ++row) sum[row][0] = sum[row][1] = _mm512_setzero_ps();
    for (int64_t word = 0; word < words; ++word, panel += kPanel) {
        const __m512 left = _mm512_loadu_ps(panel), right = _mm512_loadu_ps(panel + kLanes);
#pragma GCC unroll 12
        for (int64_t row = 0; row < kCount; ++row) {
            float number;
            std::memcpy(&number, rows + row * stride + word, sizeof number);
            sum[row][0] = _mm512_fmadd_ps(left, _mm512_set1_ps(number), sum[row][0]);
            sum[row][1] = _mm512_fmadd_ps(right, _mm512_set1_ps(number), sum[row][1]);
        }
    }
#pragma GCC unroll 12
    for (int64_t row = 0; row < kCount; ++row) {
        _mm512_storeu_ps(to + row * to_stride, sum[row][0]);
        _mm512_storeu_ps(to + row * to_stride + kLanes, sum[row][1]);
    }
}

EDGEPRUNE_AVX512 void multiply(const Word* rows, int64_t count, int64_t stride, const Word* panel, int64_t words,
                               float* to, int64_t to_stride) {
    constexpr std::array<decltype(&add<1>), kRows> kAdd{add<1>, add<2>, add<3>, add<4>,  add<5>,  add<6>,
                                                        add<7>, add<8>, add<9>, add<10>, add<11>, add<12>};
    kAdd[static_cast<size_t>(count - 1)](rows, stride, panel, words, to, to_stride);
}

constexpr Form kForm{"avx512", kRows, 1, words, pairs, weights, multiply};
#undef EDGEPRUNE_AVX512

}  // namespace avx512

namespace bf16 {

#define EDGEPRUNE_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
constexpr int64_t kRows = 12;  // times two vectors of sums, of 32 registers
constexpr int64_t kLanes = 16;

EDGEPRUNE_BF16 static inline __m256i halves_of(__m512 numbers) {
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(numbers));
}

EDGEPRUNE_BF16 static inline __mmask16 first_of(int64_t count) {
    return static_cast<__mmask16>(count < kLanes ? (1 << count) - 1 : 0xffff);
}

EDGEPRUNE_BF16 void words(const float* row, int64_t count, float factor, Operands, Word* to) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const __m512 numbers = _mm512_maskz_loadu_ps(first_of(count - i), row + i);
        const __m256i halves = halves_of(_mm512_mul_ps(numbers, _mm512_set1_ps(factor)));
        const int64_t pairs = (std::min(count - i, kLanes) + 1) / 2;
        _mm256_mask_storeu_epi32(to + i / 2, static_cast<__mmask8>((1 << pairs) - 1), halves);
    }
}

EDGEPRUNE_BF16 void pairs(const float* first, const float* second, int64_t count, Operands, Word* to) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const __mmask16 some = first_of(count - i);
        const __m512 upper = second != nullptr ? _mm512_maskz_loadu_ps(some, second + i) : _mm512_setzero_ps();
        const __m512i low = _mm512_cvtepu16_epi32(halves_of(_mm512_maskz_loadu_ps(some, first + i)));
        const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves_of(upper)), 16);
        _mm512_mask_storeu_epi32(to + i, some, _mm512_or_si512(low, high));
    }
}

EDGEPRUNE_BF16 static inline float largest_logit(float* logits, int64_t count) {
    std::fill(logits + count, logits + filled(count), -INFINITY);
    __m512 most = _mm512_loadu_ps(logits), other = most;
    int64_t i = kLanes;
    for (; i + kLanes < count; i += 2 * kLanes) {
        most = _mm512_max_ps(_mm512_loadu_ps(logits + i), most);
        other = _mm512_max_ps(_mm512_loadu_ps(logits + i + kLanes), other);
    }
    if (i < count) most = _mm512_max_ps(_mm512_loadu_ps(logits + i), most);
    return _mm512_reduce_max_ps(_mm512_max_ps(most, other));
}

EDGEPRUNE_BF16 float weights(float* logits, int64_t count, Operands, Word* to) {
    constexpr float kLog2E = 1.44269504F;
    const __m512 largest = _mm512_set1_ps(largest_logit(logits, count));
    __m512 total = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += kLanes) {
        const __m512 below = _mm512_sub_ps(_mm512_loadu_ps(logits + i), largest);
        // what lies further below becomes 0 in bfloat16; what is no number stays none: the second operand is given back
        const __m512 x = _mm512_max_ps(_mm512_set1_ps(-150.0F), _mm512_mul_ps(below, _mm512_set1_ps(kLog2E)));
        const __m512 weight = vector_math::power_of_two(x);
        total = _mm512_add_ps(total, weight);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i / 2), halves_of(weight));
    }
    return _mm512_reduce_add_ps(total);
}

template <int64_t kCount>
EDGEPRUNE_BF16 void add(const Word* rows, int64_t stride, const Word* panel, int64_t words, float* to,
                        int64_t to_stride) {
    __m512 sum[kCount][2];
#pragma GCC unroll 12
    for (int64_t row = 0; row < kCount; ++row) sum[row][0] = sum[row][1] = _mm512_setzero_ps();
    for (int64_t word = 0; word < words; ++word, panel += kPanel) {
        const auto left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel));
        const auto right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + kLanes));
#pragma GCC unroll 12
        for (int64_t row = 0; row < kCount; ++row) {
            const auto two = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(rows[row * stride + word])));
            sum[row][0] = _mm512_dpbf16_ps(sum[row][0], left, two);
            sum[row][1] = _mm512_dpbf16_ps(sum[row][1], right, two);
        }
    }
#pragma GCC unroll 12
    for (int64_t row = 0; row < kCount; ++row) {
        _mm512_storeu_ps(to + row * to_stride, sum[row][0]);
        _mm512_storeu_ps(to + row * to_stride + kLanes, sum[row][1]);
    }
}

EDGEPRUNE_BF16 void multiply(const Word* rows, int64_t count, int64_t stride, const Word* panel, int64_t words,
                             float* to, int64_t to_stride) {
    constexpr std::array<decltype(&add<1>), kRows> kAdd{add<1>, add<2>, add<3>, add<4>,  add<5>,  add<6>,
                                                        add<7>, add<8>, add<9>, add<10>, add<11>, add<12>};
    kAdd[static_cast<size_t>(count - 1)](rows, stride, panel, words, to, to_stride);
}

constexpr Form kForm{"avx512 bf16", kRows, 2, words, pairs, weights, multiply};
#undef EDGEPRUNE_BF16

}  // namespace bf16
#endif

}  // namespace

const Form* form([[maybe_unused]] Operands operands, Instructions instructions) noexcept {
    const auto asked = [instructions](Instructions one) {
        return instructions == one || instructions == Instructions::chosen;
    };
#if defined(__x86_64__)
    if (asked(Instructions::avx512_bf16) && operands == Operands::bfloat16 && has_avx512_bf16()) return &bf16::kForm;
    if (asked(Instructions::avx512) && has_avx512()) return &avx512::kForm;
    if (asked(Instructions::avx2) && has_avx2()) return &avx2::kForm;
#endif
    return asked(Instructions::portable) ? &portable::kForm : nullptr;
}

}  // namespace edgeprune::encoder
