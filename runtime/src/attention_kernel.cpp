#include "attention_kernel.h"

#include <algorithm>
#include <cmath>

#include "ceiling.h"
#include "float16.h"
#include "processor.h"
#include "vector_math.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace edgeprune::attention {
namespace {

constexpr int64_t kRows = 8;          // of queries in a block: lanes of a vector
constexpr int64_t kTile = 64;         // places whose keys and values stay in the first cache level
constexpr int64_t kGroup = 4;         // blocks of one task; they share what is read of the cache
constexpr int64_t kTasksWanted = 16;  // enough for several threads to end at the same time
constexpr int64_t kColumns = 64;      // of keys that are converted at a time
constexpr float kNothingSeen = -1e30F;
constexpr float kHidden = -3e38F;

// Eight rows of queries and what they have found so far.
struct Block {
    const float* query;     // (d,8), scaled; of a row that is alone (d)
    const int32_t* limits;  // (8) places seen
    int64_t seen_by_all;    // the least of them
    int64_t rows;           // that are no padding
    float* sums;            // (8,d)
    float* state;           // (rows,2)
};

namespace portable {
#define EDGEPRUNE_TARGET
#define EDGEPRUNE_F16C 0
#include "attention_body.h"
#undef EDGEPRUNE_F16C
#undef EDGEPRUNE_TARGET
}  // namespace portable

#if defined(__x86_64__)
namespace avx2 {
#define EDGEPRUNE_TARGET __attribute__((target("avx2,fma,f16c")))
#define EDGEPRUNE_F16C 1
#include "attention_body.h"
#undef EDGEPRUNE_F16C
#undef EDGEPRUNE_TARGET
}  // namespace avx2
#endif

}  // namespace
}  // namespace edgeprune::attention

#if defined(__x86_64__)
#include "attention_avx512.h"
#include "attention_avx512_row.h"
#endif

namespace edgeprune::attention {
namespace {

// The places [begin, end) of one key head, whose keys and values (C,d) begin at these.
struct Places {
    const void *keys, *values;
    int64_t begin, end, width;
};

template <class Element>
void run_block(const Block& block, const Places& in, bool single, [[maybe_unused]] Instructions allowed) noexcept {
    const auto* const keys = static_cast<const Element*>(in.keys);
    const auto* const values = static_cast<const Element*>(in.values);
#if defined(__x86_64__)
    if (allowed == Instructions::chosen && has_avx512() && avx512::takes(in.width)) {
        const auto run = single ? avx512::run_row<Element> : avx512::run_block<Element>;
        return run(block, keys, values, in.begin, in.end, in.width);
    }
    if (allowed != Instructions::portable && has_avx2()) {
        const auto run = single ? avx2::run_row<Element> : avx2::run_block<Element>;
        return run(block, keys, values, in.begin, in.end, in.width);
    }
#endif
    const auto run = single ? portable::run_row<Element> : portable::run_block<Element>;
    run(block, keys, values, in.begin, in.end, in.width);
}

}  // namespace

bool to_halves(const float* from, int64_t count, Half* to, [[maybe_unused]] Instructions allowed) noexcept {
#if defined(__x86_64__)
    if (allowed != Instructions::portable && has_avx2()) return avx2::narrow(from, count, to);
#endif
    return portable::narrow(from, count, to);
}

Plan::Plan(const Problem& problem, Instructions instructions)
    : problem_(problem),
      instructions_(instructions),
      share_(problem.heads / problem.kv_heads),
      rows_(share_ * problem.fresh) {
    const int64_t* const last = problem.positions + problem.batch * problem.fresh;
    longest_ = last == problem.positions ? 0 : *std::max_element(problem.positions, last) + 1;
    blocks_ = ceiling(rows_, kRows);
    groups_ = ceiling(blocks_, kGroup);
    const int64_t whole = std::max<int64_t>(1, problem.batch * problem.kv_heads * groups_);
    const int64_t place_steps = ceiling(ceiling(longest_, ceiling(kTasksWanted, whole)), kTile);
    chunk_ = std::max<int64_t>(2, place_steps) * kTile;
    chunks_ = std::max<int64_t>(1, ceiling(longest_, chunk_));
    const size_t row_blocks = static_cast<size_t>(problem.batch * problem.kv_heads * blocks_ * kRows);
    // Filled with zeros first, the queries of a prompt would pass through the memory once more.
    queries_.reset(new float[row_blocks * static_cast<size_t>(problem.width)]);
    const size_t found = chunks_ == 1 ? tasks() * kRows : row_blocks * static_cast<size_t>(chunks_);
    sums_.resize(found * static_cast<size_t>(problem.width));
    state_.resize(found * 2);
    limits_.resize(static_cast<size_t>(problem.batch * blocks_ * kRows));
    rotated_.resize(problem.cosines != nullptr ? static_cast<size_t>(problem.width) : 0);
    pack();
}

// The rows that fill up the last block repeat the last row. A row that is alone lies there by itself.
void Plan::pack() noexcept {
    const Problem& p = problem_;
    float* packed = queries_.get();
    for (int64_t batch = 0; batch < p.batch; ++batch) {
        for (int64_t kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
            for (int64_t padded = 0; padded < blocks_ * kRows; ++padded) {
                const int64_t row = std::min(padded, rows_ - 1);
                const int64_t fresh = row / share_;
                const float* query = p.query + place(batch, kv_head, row);
                if (p.cosines != nullptr) {
                    const int64_t half = p.width / 2, angles = (batch * p.fresh + fresh) * half;
                    rotate(query, p.cosines + angles, p.sines + angles, half, rotated_.data());
                    query = rotated_.data();
                }
                const int64_t step = rows_ == 1 ? 1 : kRows;
                float* lane = packed + padded / kRows * kRows * p.width + padded % step;
                for (int64_t i = 0; i < p.width; ++i) lane[i * step] = query[i] * p.scale;
                limits_[static_cast<size_t>(batch * blocks_ * kRows + padded)] =
                    static_cast<int32_t>(p.positions[batch * p.fresh + fresh] + 1);
            }
            packed += blocks_ * kRows * p.width;
        }
    }
}

bool Plan::small() const {
    constexpr int64_t kProducts = 1 << 18;
    return problem_.batch * problem_.kv_heads * blocks_ * kRows * longest_ * problem_.width < kProducts;
}

void Plan::run(size_t task) noexcept {
    const Problem& p = problem_;
    auto rest = static_cast<int64_t>(task);
    const int64_t chunk = rest % chunks_;
    const int64_t group = (rest /= chunks_) % groups_;
    const int64_t head = rest / groups_, batch = head / p.kv_heads;  // head: of all batches
    const size_t element = p.stored == Stored::float16 ? sizeof(Half) : sizeof(float);
    const size_t offset = static_cast<size_t>(head * p.capacity * p.width) * element;
    const void* const keys = static_cast<const char*>(p.keys) + offset;
    const void* const values = static_cast<const char*>(p.values) + offset;
    const auto run = p.stored == Stored::float16 ? run_block<Half> : run_block<float>;
    for (int64_t index = group * kGroup; index < std::min(blocks_, (group + 1) * kGroup); ++index) {
        const int32_t* const limits = limits_.data() + (batch * blocks_ + index) * kRows;
        const auto [least, most] = std::minmax_element(limits, limits + kRows);
        const int64_t slot = chunks_ == 1 ? static_cast<int64_t>(task) : (head * blocks_ + index) * chunks_ + chunk;
        const Block block{queries_.get() + (head * blocks_ + index) * kRows * p.width,
                          limits,
                          *least,
                          std::min(kRows, rows_ - index * kRows),
                          sums_.data() + slot * kRows * p.width,
                          state_.data() + slot * kRows * 2};
        const int64_t begin = chunk * chunk_, end = std::min<int64_t>(begin + chunk_, *most);
        run(block, {keys, values, begin, end, p.width}, rows_ == 1, instructions_);
        if (chunks_ > 1) continue;
        for (int64_t row = 0; row < block.rows; ++row) {
            write(batch, head % p.kv_heads, index * kRows + row, block.sums + row * p.width, block.state[2 * row + 1]);
        }
        std::fill_n(block.sums, kRows * p.width, 0.0F);  // 0 times what is no number would not do for the next block
    }
}

int64_t Plan::place(int64_t batch, int64_t kv_head, int64_t row) const noexcept {
    const Problem& p = problem_;
    const int64_t head = head_of(kv_head, row), fresh = row / share_;
    const int64_t whole =
        p.tokens_first ? (batch * p.fresh + fresh) * p.heads + head : (batch * p.heads + head) * p.fresh + fresh;
    return whole * p.width;
}

void Plan::write(int64_t batch, int64_t kv_head, int64_t row, const float* sums, float total) noexcept {
    float* const to = problem_.mixed + place(batch, kv_head, row);
    for (int64_t i = 0; i < problem_.width; ++i) to[i] = sums[i] / total;
}

void Plan::finish() noexcept {
    if (chunks_ == 1) return;
    const int64_t width = problem_.width;
    for (int64_t head = 0; head < problem_.batch * problem_.kv_heads; ++head) {
        for (int64_t row = 0; row < rows_; ++row) {
            const int64_t slot = (head * blocks_ + row / kRows) * chunks_ * kRows + row % kRows;
            float* const sums = sums_.data() + slot * width;  // of the first chunk; the others are added to it
            const float* const state = state_.data() + slot * 2;
            float largest = state[0], total = 0;
            for (int64_t chunk = 1; chunk < chunks_; ++chunk) largest = std::max(largest, state[chunk * kRows * 2]);
            for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
                const float factor = std::exp(state[chunk * kRows * 2] - largest);
                const float* const part = sums + chunk * kRows * width;
                total += factor * state[chunk * kRows * 2 + 1];
                for (int64_t i = 0; i < width; ++i) sums[i] = (chunk == 0 ? 0 : sums[i]) + factor * part[i];
            }
            write(head / problem_.kv_heads, head % problem_.kv_heads, row, sums, total);
        }
    }
}

}  // namespace edgeprune::attention
