#include "product_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ceiling.h"
#include "processor.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace edgeprune::product {
namespace {

constexpr int64_t kLine = 64;                   // bytes of a block's weights that are taken at a time
constexpr int64_t kLines = kBlock * 8 / kLine;  // in a block
constexpr int64_t kFactorBytes = 4 * kColumns;
constexpr int64_t kScaleBytes = kColumns;
constexpr int64_t kMiddle = 8;           // what the bits of a weight of 0 are
constexpr int64_t kAhead = 4096;         // bytes that are fetched beforehand
constexpr float kNothing = 1e-30F;       // inputs whose reciprocal may be infinite count as 0
constexpr int64_t kGroup = 8;            // tiles that are read together
constexpr int64_t kTaskBytes = 1 << 17;  // of weights, so that threads end at the same time

// One row of inputs, rounded.
struct Row {
    const int8_t* whole;     // (blocks,32)
    const float* scales;     // (blocks)
    const int32_t* offsets;  // (blocks)
};

namespace portable {

using Bytes = uint8_t __attribute__((vector_size(8)));
using Shorts = int16_t __attribute__((vector_size(16)));

// Adds 8 weights times the inputs of their rows, of two columns each; 8 such sums fit 16 bits.
inline void add(Bytes bits, Shorts inputs, Shorts& sums) {
    sums += __builtin_convertvector(bits, Shorts) * inputs;
}

inline Shorts twice(const int8_t* four) {
    return Shorts{four[0], four[1], four[2], four[3], four[0], four[1], four[2], four[3]};
}

void tile(const uint8_t* weights, int64_t blocks, const Row& row, float* sums) {
    std::fill_n(sums, kColumns, 0.0F);
    for (int64_t block = 0; block < blocks; ++block, weights += kBlockBytes) {
        Shorts pairs[kColumns / 2]{};
        for (int64_t line = 0; line < kLines; ++line) {
            const int8_t* const inputs = row.whole + block * kBlock + line * 8;
            const Shorts low = twice(inputs), high = twice(inputs + 4);
            for (int64_t pair = 0; pair < kColumns / 2; ++pair) {
                Bytes bits;
                std::memcpy(&bits, weights + kScaleBytes + line * kLine + pair * 8, sizeof bits);
                add(bits & 15, low, pairs[pair]);
                add(bits >> 4, high, pairs[pair]);
            }
        }
        for (int64_t column = 0; column < kColumns; ++column) {
            const Shorts& four = pairs[column / 2];
            const int64_t at = column % 2 * 4;
            const int32_t sum = four[at] + four[at + 1] + four[at + 2] + four[at + 3] + row.offsets[block];
            const auto scale = static_cast<int8_t>(weights[column]);
            sums[column] += static_cast<float>(scale) * row.scales[block] * static_cast<float>(sum);
        }
    }
}

}  // namespace portable

[[maybe_unused]] int32_t four_of(const int8_t* whole) noexcept {
    int32_t four;
    std::memcpy(&four, whole, sizeof four);
    return four;
}

#if defined(__aarch64__)
__attribute__((target("arch=armv8.2-a+dotprod"))) void tile_dot(const uint8_t* weights, int64_t blocks, const Row& row,
                                                                float* sums) {
    const uint8x16_t low = vdupq_n_u8(15);
    float32x4_t all[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (int64_t block = 0; block < blocks; ++block, weights += kBlockBytes) {
        int32x4_t sum[4];
        for (int32x4_t& each : sum) each = vdupq_n_s32(row.offsets[block]);
        for (int64_t line = 0; line < kLines; ++line) {
            const uint8_t* const bits = weights + kScaleBytes + line * kLine;
            const int8_t* const whole = row.whole + block * kBlock + line * 8;
            const int8x16_t first = vreinterpretq_s8_s32(vdupq_n_s32(four_of(whole)));
            const int8x16_t second = vreinterpretq_s8_s32(vdupq_n_s32(four_of(whole + 4)));
            __builtin_prefetch(bits + kAhead);
            for (int64_t i = 0; i < 4; ++i) {
                const uint8x16_t four = vld1q_u8(bits + 16 * i);
                sum[i] = vdotq_s32(sum[i], vreinterpretq_s8_u8(vandq_u8(four, low)), first);
                sum[i] = vdotq_s32(sum[i], vreinterpretq_s8_u8(vshrq_n_u8(four, 4)), second);
            }
        }
        for (int64_t i = 0; i < 4; ++i) {
            const int16x8_t eight = vmovl_s8(vld1_s8(reinterpret_cast<const int8_t*>(weights) + i / 2 * 8));
            const int32x4_t scales = vmovl_s16(i % 2 == 0 ? vget_low_s16(eight) : vget_high_s16(eight));
            const float32x4_t factor = vmulq_n_f32(vcvtq_f32_s32(scales), row.scales[block]);
            all[i] = vfmaq_f32(all[i], factor, vcvtq_f32_s32(sum[i]));
        }
    }
    for (int64_t i = 0; i < 4; ++i) vst1q_f32(sums + 4 * i, all[i]);
}
#endif

#if defined(__x86_64__)

__attribute__((target("avx2,fma"))) void tile_avx2(const uint8_t* weights, int64_t blocks, const Row& row,
                                                   float* sums) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 left = _mm256_setzero_ps(), right = _mm256_setzero_ps();
    for (int64_t block = 0; block < blocks; ++block, weights += kBlockBytes) {
        // Pairs of products, 8 of them: at most 30,480, so 16 bits hold them.
        __m256i a = _mm256_setzero_si256(), b = a;
        for (int64_t line = 0; line < kLines; ++line) {
            const uint8_t* const bits = weights + kScaleBytes + line * kLine;
            const int8_t* const whole = row.whole + block * kBlock + line * 8;
            const __m256i first = _mm256_set1_epi32(four_of(whole)), second = _mm256_set1_epi32(four_of(whole + 4));
            const __m256i p = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits));
            const __m256i q = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits + 32));
            _mm_prefetch(reinterpret_cast<const char*>(bits + kAhead), _MM_HINT_T0);
            a = _mm256_add_epi16(a, _mm256_maddubs_epi16(_mm256_and_si256(p, low), first));
            b = _mm256_add_epi16(b, _mm256_maddubs_epi16(_mm256_and_si256(q, low), first));
            a = _mm256_add_epi16(a, _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(p, 4), low), second));
            b = _mm256_add_epi16(b, _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(q, 4), low), second));
        }
        const __m256i offset = _mm256_set1_epi32(row.offsets[block]);
        const __m256 input = _mm256_set1_ps(row.scales[block]);
        const auto scales_at = [weights](int64_t from) { return reinterpret_cast<const __m128i*>(weights + from); };
        const __m256i p = _mm256_cvtepi8_epi32(_mm_loadl_epi64(scales_at(0)));
        const __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64(scales_at(8)));
        const __m256 x = _mm256_mul_ps(_mm256_cvtepi32_ps(p), input), y = _mm256_mul_ps(_mm256_cvtepi32_ps(q), input);
        left = _mm256_fmadd_ps(x, _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(a, ones), offset)), left);
        right = _mm256_fmadd_ps(y, _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(b, ones), offset)), right);
    }
    _mm256_storeu_ps(sums, left);
    _mm256_storeu_ps(sums + 8, right);
}

// kTiles at once: memory gives more to a thread that reads at several places.
template <int64_t kTiles>
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void tiles_vnni(const uint8_t* weights, int64_t stride,
                                                                       int64_t blocks, const Row& row, float* sums) {
    const __m512i low = _mm512_set1_epi8(15);
    __m512 all[kTiles];
    for (__m512& each : all) each = _mm512_setzero_ps();
    for (int64_t block = 0; block < blocks; ++block, weights += kBlockBytes) {
        __m512i sum[kTiles];
        for (__m512i& each : sum) each = _mm512_set1_epi32(row.offsets[block]);
        for (int64_t line = 0; line < kLines; ++line) {
            const int8_t* const whole = row.whole + block * kBlock + line * 8;
            const __m512i first = _mm512_set1_epi32(four_of(whole)), second = _mm512_set1_epi32(four_of(whole + 4));
            for (int64_t i = 0; i < kTiles; ++i) {
                const __m512i bits = _mm512_loadu_si512(weights + i * stride + kScaleBytes + line * kLine);
                const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bits, 4), low);
                sum[i] = _mm512_dpbusd_epi32(sum[i], _mm512_and_si512(bits, low), first);
                sum[i] = _mm512_dpbusd_epi32(sum[i], high, second);
            }
        }
        const __m512 input = _mm512_set1_ps(row.scales[block]);
        for (int64_t i = 0; i < kTiles; ++i) {
            const auto* const scales_at = reinterpret_cast<const __m128i*>(weights + i * stride);
            const __m512 scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(scales_at)));
            all[i] = _mm512_fmadd_ps(_mm512_mul_ps(scales, input), _mm512_cvtepi32_ps(sum[i]), all[i]);
        }
    }
    for (int64_t i = 0; i < kTiles; ++i) _mm512_storeu_ps(sums + i * kColumns, all[i]);
}
#endif

using Lanes = float __attribute__((vector_size(32)));
using Whole = int32_t __attribute__((vector_size(32)));

// The scale of a block of inputs; `whole`: what they are of it, `offset`: -8 times their sum.
float rounded(const float* values, int8_t* whole, int32_t& offset) noexcept {
    const auto* const lanes = reinterpret_cast<const Lanes*>(values);
    Lanes peaks{}, nothing{};
    for (int64_t i = 0; i < kBlock / 8; ++i) {
        const Lanes size = lanes[i] < Lanes{} ? -lanes[i] : lanes[i];
        peaks = size > peaks ? size : peaks;
        nothing += lanes[i] * 0.0F;  // NaN where one is no finite number
    }
    float largest = 0, sum_of_nothing = 0;
    for (int64_t i = 0; i < 8; ++i) {
        largest = std::max(largest, peaks[i]);
        sum_of_nothing += nothing[i];
    }
    const bool finite = sum_of_nothing == 0;
    if (!finite || largest < kNothing) {
        std::fill_n(whole, kBlock, int8_t{0});
        offset = 0;
        return finite ? 0 : std::numeric_limits<float>::quiet_NaN();
    }
    const float rounder = 12582912.0F;  // 1.5 * 2^23: adding it leaves whole numbers, in the lowest bits
    const float factor = 127 / largest;
    Whole sums{};
    for (int64_t i = 0; i < kBlock / 8; ++i) {
        const Whole eight = __builtin_convertvector((lanes[i] * factor + rounder) - rounder, Whole);
        for (int64_t k = 0; k < 8; ++k) whole[8 * i + k] = static_cast<int8_t>(eight[k]);
        sums += eight;
    }
    offset = 0;
    for (int64_t i = 0; i < 8; ++i) offset -= static_cast<int32_t>(kMiddle) * sums[i];
    return largest / 127;
}

using Tile = void (*)(const uint8_t* weights, int64_t blocks, const Row& row, float* sums);

Tile one_tile([[maybe_unused]] Instructions instructions) noexcept {
#if defined(__x86_64__)
    if (instructions != Instructions::portable && has_avx2()) return tile_avx2;
#elif defined(__aarch64__)
    if (instructions == Instructions::chosen && has_dot_product()) return tile_dot;
#endif
    return portable::tile;
}

// `count` tiles that lie `stride` bytes apart, up to kGroup.
void run_tiles(const uint8_t* weights, int64_t stride, int64_t count, int64_t blocks, const Row& row,
               Instructions instructions, float* sums) noexcept {
#if defined(__x86_64__)
    if (instructions == Instructions::chosen && has_avx512_vnni()) {
        if (count == kGroup) return tiles_vnni<kGroup>(weights, stride, blocks, row, sums);
        for (int64_t i = 0; i < count; ++i)
            tiles_vnni<1>(weights + i * stride, stride, blocks, row, sums + i * kColumns);
        return;
    }
#endif
    const Tile tile = one_tile(instructions);
    for (int64_t i = 0; i < count; ++i) tile(weights + i * stride, blocks, row, sums + i * kColumns);
}

}  // namespace

Plan::Plan(const Problem& problem, Instructions instructions)
    : problem_(problem),
      instructions_(instructions),
      tiles_(tiles_of(problem.columns)),
      blocks_(blocks_of(problem.depth)) {
    const int64_t bytes = tiles_ * tile_bytes(problem.depth), most = std::max<int64_t>(1, ceiling(tiles_, kGroup));
    tasks_ = static_cast<size_t>(std::clamp<int64_t>(bytes / kTaskBytes, 1, most));
    const auto blocks = static_cast<size_t>(problem.rows * blocks_);
    whole_.resize(blocks * kBlock);
    scales_.resize(blocks);
    offsets_.resize(blocks);
    round_inputs();
}

void Plan::round_inputs() noexcept {
    for (int64_t row = 0, at = 0; row < problem_.rows; ++row) {
        for (int64_t block = 0; block < blocks_; ++block, ++at) {
            const int64_t count = std::min(kBlock, problem_.depth - block * kBlock);
            alignas(kBlock) float values[kBlock]{};
            std::copy_n(problem_.input + row * problem_.depth + block * kBlock, count, values);
            const auto index = static_cast<size_t>(at);
            scales_[index] = rounded(values, whole_.data() + at * kBlock, offsets_[index]);
        }
    }
}

bool Plan::small() const {
    return problem_.rows * tiles_ * tile_bytes(problem_.depth) < kTaskBytes;
}

void Plan::run(size_t task) const noexcept {
    const int64_t groups = ceiling(tiles_, kGroup), tasks = static_cast<int64_t>(tasks_);
    const int64_t first = static_cast<int64_t>(task) * groups / tasks;
    const int64_t end = (static_cast<int64_t>(task) + 1) * groups / tasks;
    for (int64_t tile = first * kGroup; tile < std::min(end * kGroup, tiles_); tile += kGroup) {
        for (int64_t row = 0; row < problem_.rows; ++row) run_group(tile, row);
    }
}

void Plan::run_group(int64_t first, int64_t row) const noexcept {
    const int64_t stride = tile_bytes(problem_.depth), count = std::min(kGroup, tiles_ - first);
    const uint8_t* const weights = problem_.weights + first * stride;
    const size_t at = static_cast<size_t>(row * blocks_);
    const Row rounded_row{whole_.data() + at * kBlock, scales_.data() + at, offsets_.data() + at};
    float sums[kGroup * kColumns];
    run_tiles(weights + kFactorBytes, stride, count, blocks_, rounded_row, instructions_, sums);
    for (int64_t tile = 0; tile < count; ++tile) {
        float factors[kColumns];
        std::memcpy(factors, weights + tile * stride, sizeof factors);
        const int64_t column = (first + tile) * kColumns, left = std::min(kColumns, problem_.columns - column);
        float* const to = problem_.output + row * problem_.columns + column;
        for (int64_t i = 0; i < left; ++i) to[i] = sums[tile * kColumns + i] * factors[i];
    }
}

}  // namespace edgeprune::product
