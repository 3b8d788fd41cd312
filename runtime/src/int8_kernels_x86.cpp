#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>

#include "avx512_math.h"
#include "int8_forms.h"
#include "int8_rows.h"
#include "processor.h"

namespace edgeprune::int8 {
namespace {

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

const Form kForm{"avx2", kRows, round, multiply};
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

const Form kForm{"avx vnni", kRows, avx2::round, multiply};
#undef EDGEPRUNE_AVX_VNNI

}  // namespace avx_vnni

namespace avx512 {

#define EDGEPRUNE_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
constexpr int64_t kRows = 12;  // times two vectors of sums, of 32 registers

EDGEPRUNE_VNNI Rounded round(const float* row, int64_t count, uint8_t* whole) {
    return round_row<64>(row, count, whole);
}

// y / (1 + 2^x), x = -swish log2(e) y, by a reciprocal from a table and one step of Newton's.
EDGEPRUNE_VNNI inline __m512 swish(__m512 y, float factor) {
    const __m512 scaled = _mm512_mul_ps(y, _mm512_set1_ps(-1.44269504F * factor));
    // what is no number stays none: the second operand is given back
    const __m512 above = _mm512_max_ps(_mm512_set1_ps(-126.0F), scaled);
    const __m512 power = vector_math::power_of_two(_mm512_min_ps(_mm512_set1_ps(126.0F), above));
    const __m512 below = _mm512_add_ps(power, _mm512_set1_ps(1.0F));
    const __m512 near = _mm512_rcp14_ps(below);
    const __m512 share = _mm512_mul_ps(near, _mm512_fnmadd_ps(below, near, _mm512_set1_ps(2.0F)));
    return _mm512_mul_ps(y, share);
}

// `finish`, with a faster swish.
EDGEPRUNE_VNNI inline void finish_rows(const Rows& rows, const Panel& panel, const int32_t* sums, float* to,
                                       int64_t stride) {
    for (int64_t row = 0; row < rows.count; ++row) {
        const __m512 step = _mm512_set1_ps(rows.rounded[row].step);
        for (int64_t i = 0; i < kPanel; i += kPanel / 2) {
            const __m512 whole = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums + row * kPanel + i));
            const __m512 scaled = _mm512_mul_ps(whole, _mm512_mul_ps(_mm512_loadu_ps(panel.factors + i), step));
            const __m512 y = _mm512_add_ps(scaled, _mm512_loadu_ps(panel.bias + i));
            _mm512_storeu_ps(to + row * stride + i, panel.swish != 0 ? swish(y, panel.swish) : y);
        }
    }
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
    finish_rows(rows, panel, sums, to, stride);
}

const Form kForm{"avx512 vnni", kRows, round, multiply};

}  // namespace avx512

namespace amx {

#define EDGEPRUNE_AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,amx-tile,amx-int8")))
#include "int8_amx.h"

EDGEPRUNE_AMX void multiply(const Rows& rows, const Panel& panel, float* to, int64_t stride) {
    alignas(64) int32_t sums[kMost * kPanel];
    begin<64>(rows, panel, kRaised, sums);
    add(rows, panel, sums);
    avx512::finish_rows(rows, panel, sums, to, stride);
}

const Form kForm{"amx", kMost, avx512::round, multiply};

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

}  // namespace

const Form* x86_form(Instructions instructions) noexcept {
    if (is_asked(instructions, Instructions::amx) && amx::usable()) return &amx::kForm;
    if (is_asked(instructions, Instructions::avx512_vnni) && has_avx512_vnni()) return &avx512::kForm;
    if (is_asked(instructions, Instructions::avx_vnni) && has_avx_vnni()) return &avx_vnni::kForm;
    if (is_asked(instructions, Instructions::avx2) && has_avx2()) return &avx2::kForm;
    return nullptr;
}

}  // namespace edgeprune::int8

#endif
