#include "int8_kernels.h"

#include <array>

#include "int8_forms.h"
#include "int8_rows.h"
#include "processor.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace edgeprune::int8 {
namespace {

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

}  // namespace

const Form* form(Instructions instructions) noexcept {
#if defined(__x86_64__)
    if (const Form* const found = x86_form(instructions)) return found;
#elif defined(__aarch64__)
    if (is_asked(instructions, Instructions::dot_product) && has_dot_product()) return &dot::kForm;
#endif
    return is_asked(instructions, Instructions::portable) ? &portable::kForm : nullptr;
}

}  // namespace edgeprune::int8
