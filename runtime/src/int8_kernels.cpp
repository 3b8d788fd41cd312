#include "int8_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "processor.h"
#include "vector_math.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

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

namespace portable {

constexpr int64_t kRows = 4;

Rounded round(const float* row, int64_t count, uint8_t* whole) {
    return round_row<16>(row, count, whole);
}

void multiply(const Rows& rows, const Panel& panel, float* to, int64_t stride) {
    alignas(64) int32_t sums[kRows * kPanel];
    begin<16>(rows, panel, 0, sums);
    for (int64_t group = 0; group < panel.groups; ++group) {
        const uint8_t* const weights = panel.weights + group * kLine;
        for (int64_t row = 0; row < rows.count; ++row) {
            const uint8_t* const four = rows.whole + row * rows.stride + group * kGroup;
            for (int64_t column = 0; column < kPanel; ++column) {
                int32_t sum = 0;
                for (int64_t i = 0; i < kGroup; ++i)
                    sum += static_cast<int8_t>(four[i]) * (weights[column * kGroup + i] - kRaised);
                sums[row * kPanel + column] += sum;
            }
        }
    }
    finish<16>(rows, panel, sums, to, stride);
}

constexpr Form kForm{"portable", kRows, round, multiply};

}  // namespace portable

#if defined(__aarch64__)
namespace dot {

#define EDGEPRUNE_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
constexpr int64_t kRows = 4;
constexpr int64_t kVectors = 4;  // of 4 columns, half of a panel

EDGEPRUNE_DOT Rounded round(const float* row, int64_t count, uint8_t* whole) {
    return round_row<16>(row, count, whole);
}

// kCount rows times half of a panel.
template <int64_t kCount>
EDGEPRUNE_DOT void add(const Rows& rows, const uint8_t* weights, int64_t groups, int32_t* sums) {
    const uint8x16_t raised = vdupq_n_u8(kRaised);
    int32x4_t sum[kCount][kVectors];
#pragma GCC unroll 4
    for (int64_t row = 0; row < kCount; ++row) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < kVectors; ++i) sum[row][i] = vld1q_s32(sums + row * kPanel + 4 * i);
    }
    for (int64_t group = 0; group < groups; ++group, weights += kLine) {
        int8x16_t four[kVectors];
#pragma GCC unroll 4
        for (int64_t i = 0; i < kVectors; ++i)
            four[i] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(weights + 16 * i), raised));
#pragma GCC unroll 4
        for (int64_t row = 0; row < kCount; ++row) {
            const int32_t whole = four_of(rows.whole + row * rows.stride + group * kGroup);
            const int8x16_t inputs = vreinterpretq_s8_s32(vdupq_n_s32(whole));
#pragma GCC unroll 4
            for (int64_t i = 0; i < kVectors; ++i) sum[row][i] = vdotq_s32(sum[row][i], four[i], inputs);
        }
    }
#pragma GCC unroll 4
    for (int64_t row = 0; row < kCount; ++row) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < kVectors; ++i) vst1q_s32(sums + row * kPanel + 4 * i, sum[row][i]);
    }
}

EDGEPRUNE_DOT void multiply(const Rows& rows, const Panel& panel, float* to, int64_t stride) {
    constexpr std::array<decltype(&add<1>), kRows> kAdd{add<1>, add<2>, add<3>, add<4>};
    alignas(64) int32_t sums[kRows * kPanel];
    begin<16>(rows, panel, 0, sums);
    const auto run = kAdd[static_cast<size_t>(rows.count - 1)];
    for (int64_t half = 0; half < 2; ++half)
        run(rows, panel.weights + half * kLine / 2, panel.groups, sums + half * kPanel / 2);
    finish<16>(rows, panel, sums, to, stride);
}

constexpr Form kForm{"dot product", kRows, round, multiply};
#undef EDGEPRUNE_DOT

}  // namespace dot
#endif

#if defined(__x86_64__)
namespace avx2 {

#define EDGEPRUNE_AVX2 __attribute__((target("avx2,fma")))
constexpr int64_t kRows = 4;

EDGEPRUNE_AVX2 Rounded round(const float* row, int64_t count, uint8_t* whole) {
    return round_row<32>(row, count, whole);
}

// kCount rows times half of a panel. The instruction takes bytes without a sign on one side, so signs move to the
// weights; 2 * 128 * 127 fits the 16 bits of a pair of products.
template <int64_t kCount>
EDGEPRUNE_AVX2 void add(const Rows& rows, const uint8_t* weights, int64_t groups, int32_t* sums) {
    const __m256i raised = _mm256_set1_epi8(static_cast<char>(kRaised)), ones = _mm256_set1_epi16(1);
    __m256i sum[kCount][2];
#pragma GCC unroll 4
    for (int64_t row = 0; row < kCount; ++row) {
#pragma GCC unroll 2
        for (int64_t i = 0; i < 2; ++i)
            sum[row][i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + row * kPanel + 8 * i));
    }
    for (int64_t group = 0; group < groups; ++group, weights += kLine) {
        const auto* const at = reinterpret_cast<const __m256i*>(weights);
        const __m256i left = _mm256_xor_si256(_mm256_loadu_si256(at), raised);
        const __m256i right = _mm256_xor_si256(_mm256_loadu_si256(at + 1), raised);
#pragma GCC unroll 4
        for (int64_t row = 0; row < kCount; ++row) {
            const __m256i four = _mm256_set1_epi32(four_of(rows.whole + row * rows.stride + group * kGroup));
            const __m256i size = _mm256_abs_epi8(four);
            const __m256i a = _mm256_maddubs_epi16(size, _mm256_sign_epi8(left, four));
            const __m256i b = _mm256_maddubs_epi16(size, _mm256_sign_epi8(right, four));
            sum[row][0] = _mm256_add_epi32(sum[row][0], _mm256_madd_epi16(a, ones));
            sum[row][1] = _mm256_add_epi32(sum[row][1], _mm256_madd_epi16(b, ones));
        }
    }
#pragma GCC unroll 4
    for (int64_t row = 0; row < kCount; ++row) {
#pragma GCC unroll 2
        for (int64_t i = 0; i < 2; ++i)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + row * kPanel + 8 * i), sum[row][i]);
    }
}

EDGEPRUNE_AVX2 void multiply(const Rows& rows, const Panel& panel, float* to, int64_t stride) {
    constexpr std::array<decltype(&add<1>), kRows> kAdd{add<1>, add<2>, add<3>, add<4>};
    alignas(64) int32_t sums[kRows * kPanel];
    begin<32>(rows, panel, 0, sums);
    const auto run = kAdd[static_cast<size_t>(rows.count - 1)];
    for (int64_t half = 0; half < 2; ++half)
        run(rows, panel.weights + half * kLine / 2, panel.groups, sums + half * kPanel / 2);
    finish<32>(rows, panel, sums, to, stride);
}

constexpr Form kForm{"avx2", kRows, round, multiply};
#undef EDGEPRUNE_AVX2

}  // namespace avx2

namespace avx_vnni {

#define EDGEPRUNE_AVX_VNNI __attribute__((target("avx2,fma,avxvnni")))
constexpr int64_t kRows = 6;  // times two vectors of sums, of 16 registers

// kCount rows times half of a panel.
template <int64_t kCount>
EDGEPRUNE_AVX_VNNI void add(const Rows& rows, const uint8_t* weights, int64_t groups, int32_t* sums) {
    __m256i sum[kCount][2];
#pragma GCC unroll 6
    for (int64_t row = 0; row < kCount; ++row) {
        sum[row][0] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + row * kPanel));
        sum[row][1] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + row * kPanel + 8));
    }
    for (int64_t group = 0; group < groups; ++group, weights += kLine) {
        const auto* const at = reinterpret_cast<const __m256i*>(weights);
        const __m256i left = _mm256_loadu_si256(at), right = _mm256_loadu_si256(at + 1);
#pragma GCC unroll 6
        for (int64_t row = 0; row < kCount; ++row) {
            const __m256i four = _mm256_set1_epi32(four_of(rows.whole + row * rows.stride + group * kGroup));
            sum[row][0] = _mm256_dpbusd_avx_epi32(sum[row][0], left, four);
            sum[row][1] = _mm256_dpbusd_avx_epi32(sum[row][1], right, four);
        }
    }
#pragma GCC unroll 6
    for (int64_t row = 0; row < kCount; ++row) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + row * kPanel), sum[row][0]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + row * kPanel + 8), sum[row][1]);
    }
}

EDGEPRUNE_AVX_VNNI void multiply(const Rows& rows, const Panel& panel, float* to, int64_t stride) {
    constexpr std::array<decltype(&add<1>), kRows> kAdd{add<1>, add<2>, add<3>, add<4>, add<5>, add<6>};
    alignas(64) int32_t sums[kRows * kPanel];
    begin<32>(rows, panel, kRaised, sums);
    const auto run = kAdd[static_cast<size_t>(rows.count - 1)];
    for (int64_t half = 0; half < 2; ++half)
        run(rows, panel.weights + half * kLine / 2, panel.groups, sums + half * kPanel / 2);
    finish<32>(rows, panel, sums, to, stride);
}

constexpr Form kForm{"avx vnni", kRows, avx2::round, multiply};
#undef EDGEPRUNE_AVX_VNNI

}  // namespace avx_vnni

namespace avx512 {

#define EDGEPRUNE_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
constexpr int64_t kRows = 12;  // times two vectors of sums, of 32 registers

EDGEPRUNE_VNNI Rounded round(const float* row, int64_t count, uint8_t* whole) {
    return round_row<64>(row, count, whole);
}

// A line of what comes next is fetched every four groups, so that the memory is never waited for.
template <int64_t kCount>
EDGEPRUNE_VNNI void add(const Rows& rows, const Panel& panel, int32_t* sums) {
    __m512i sum[kCount][2];
#pragma GCC unroll 16
    for (int64_t row = 0; row < kCount; ++row) {
        sum[row][0] = _mm512_loadu_si512(sums + row * kPanel);
        sum[row][1] = _mm512_loadu_si512(sums + row * kPanel + kPanel / 2);
    }
    const uint8_t* weights = panel.weights;
    const uint8_t *ahead = panel.ahead, *const ahead_end = ahead + panel.ahead_bytes;
    const uint8_t* whole = rows.whole;
    for (int64_t four = 0; four < panel.groups; four += 4) {
        if (ahead < ahead_end) __builtin_prefetch(ahead, 0, 2);
        ahead += 64;
#pragma GCC unroll 4
        for (int64_t group = 0; group < 4; ++group, weights += kLine, whole += kGroup) {
            const __m512i left = _mm512_loadu_si512(weights), right = _mm512_loadu_si512(weights + kLine / 2);
#pragma GCC unroll 16
            for (int64_t row = 0; row < kCount; ++row) {
                const __m512i each = _mm512_set1_epi32(four_of(whole + row * rows.stride));
                sum[row][0] = _mm512_dpbusd_epi32(sum[row][0], left, each);
                sum[row][1] = _mm512_dpbusd_epi32(sum[row][1], right, each);
            }
        }
    }
#pragma GCC unroll 16
    for (int64_t row = 0; row < kCount; ++row) {
        _mm512_storeu_si512(sums + row * kPanel, sum[row][0]);
        _mm512_storeu_si512(sums + row * kPanel + kPanel / 2, sum[row][1]);
    }
}

EDGEPRUNE_VNNI void multiply(const Rows& rows, const Panel& panel, float* to, int64_t stride) {
    constexpr std::array<decltype(&add<1>), kRows> kAdd{add<1>, add<2>, add<3>, add<4>,  add<5>,  add<6>,
                                                        add<7>, add<8>, add<9>, add<10>, add<11>, add<12>};
    alignas(64) int32_t sums[kRows * kPanel];
    begin<64>(rows, panel, kRaised, sums);
    kAdd[static_cast<size_t>(rows.count - 1)](rows, panel, sums);
    finish<64>(rows, panel, sums, to, stride);
}

constexpr Form kForm{"avx512 vnni", kRows, round, multiply};

}  // namespace avx512

namespace amx {

#define EDGEPRUNE_AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,amx-tile,amx-int8")))
#include "int8_amx.h"

EDGEPRUNE_AMX void multiply(const Rows& rows, const Panel& panel, float* to, int64_t stride) {
    alignas(64) int32_t sums[kMost * kPanel];
    begin<64>(rows, panel, kRaised, sums);
    add(rows, panel, sums);
    finish<64>(rows, panel, sums, to, stride);
}

constexpr Form kForm{"amx", kMost, avx512::round, multiply};

// No machine with these registers was at hand when this was written, so it is used only where it agrees with the form
// that was tested: every number of 32 rows times a panel.
bool agrees() {
    constexpr int64_t kDepth = 128;
    std::array<uint8_t, kMost * kDepth> whole;
    std::array<uint8_t, kDepth * kPanel> weights;
    std::array<Rounded, kMost> rounded;
    std::array<float, kPanel> factors;
    std::array<float, kMost * kPanel> found, wanted;
    const std::array<int32_t, kPanel> sums{};
    const std::array<float, kPanel> bias{};
    factors.fill(1);
    rounded.fill({1, 0, 0});
    uint32_t next = 1;
    const auto byte = [&next] { return static_cast<uint8_t>((next = next * 1664525 + 1013904223) >> 24); };
    for (uint8_t& each : whole) each = byte();
    for (uint8_t& each : weights) each = byte();
    const Panel panel{factors.data(), sums.data(), bias.data(), 0, weights.data(), kDepth / kGroup, nullptr, 0};
    for (const int64_t count : {int64_t{5}, kMost}) {
        multiply({whole.data(), kDepth, count, rounded.data()}, panel, found.data(), kPanel);
        for (int64_t row = 0; row < count; ++row)
            avx512::multiply({whole.data() + row * kDepth, kDepth, 1, rounded.data()}, panel,
                             wanted.data() + row * kPanel, kPanel);
        if (!std::equal(found.begin(), found.begin() + count * kPanel, wanted.begin())) return false;
    }
    return true;
}

bool usable() noexcept {
    static const bool known = has_avx512_vnni() && has_amx_int8() && agrees();
    return known;
}
#undef EDGEPRUNE_AMX
#undef EDGEPRUNE_VNNI

}  // namespace amx
#endif

}  // namespace

const Form* form(Instructions instructions) noexcept {
    const auto asked = [instructions](Instructions one) {
        return instructions == one || instructions == Instructions::chosen;
    };
#if defined(__x86_64__)
    if (asked(Instructions::amx) && amx::usable()) return &amx::kForm;
    if (asked(Instructions::avx512_vnni) && has_avx512_vnni()) return &avx512::kForm;
    if (asked(Instructions::avx_vnni) && has_avx_vnni()) return &avx_vnni::kForm;
    if (asked(Instructions::avx2) && has_avx2()) return &avx2::kForm;
#elif defined(__aarch64__)
    if (asked(Instructions::dot_product) && has_dot_product()) return &dot::kForm;
#endif
    return asked(Instructions::portable) ? &portable::kForm : nullptr;
}

}  // namespace edgeprune::int8
