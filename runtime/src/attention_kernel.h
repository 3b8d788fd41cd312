// Attention over a key-value cache of fixed capacity, on one processor core per task; no onnxruntime in here.
// Each key and value is read once for all query heads of its group; sums are floats, whatever the cache holds. B batch,
// H query heads, G = H / Hkv, T new tokens, C places of the cache, d head width.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace edgeprune::attention {

using Half = uint16_t;                   // bits of an IEEE 754 binary16
constexpr float kHalfEnd = 65520;        // what is as large rounds to infinity
enum class Stored { float32, float16 };  // what a cache holds

struct Problem {
    int64_t batch, heads, kv_heads, fresh, capacity, width;  // B, H, Hkv, T, C, d
    float scale;                                             // of the logits
    const float* query;                                      // (B,H,T,d)
    Stored stored;
    const void* keys;                                  // (B,Hkv,C,d); halves that are seen must be finite
    const void* values;                                // (B,Hkv,C,d)
    const int64_t* positions;                          // (B,T), each in [0, C): its own place, the last it sees
    float* mixed;                                      // (B,H,T,d), written
    bool tokens_first = false;                         // query and mixed are (B,T,H,d)
    const float *cosines = nullptr, *sines = nullptr;  // (B,T,d/2): queries are rotated by these first; null: they are
};

// A row of width 2 * half whose halves are turned: (a cos - b sin, b cos + a sin).
inline void rotate(const float* row, const float* cosines, const float* sines, int64_t half, float* to) {
    for (int64_t i = 0; i < half; ++i) {
        const float a = row[i], b = row[half + i];
        to[i] = a * cosines[i] - b * sines[i];
        to[half + i] = b * cosines[i] + a * sines[i];
    }
}

enum class Instructions { chosen, avx2, portable };

// Rounds floats to the nearest halves, ties to even. Returns whether each is a number whose half is finite.
bool to_halves(const float* from, int64_t count, Half* to, Instructions instructions = Instructions::chosen) noexcept;

// The work cut into tasks of (batch, key head, rows of queries, places of the cache). Any thread may run any task,
// each once; finish() comes after the last. May throw std::bad_alloc in the constructor only.
class Plan {
public:
    // instructions: the best that the processor has, or less than that.
    explicit Plan(const Problem& problem, Instructions instructions = Instructions::chosen);
    size_t tasks() const { return static_cast<size_t>(problem_.batch * problem_.kv_heads * groups_ * chunks_); }
    // Whether one thread is done before it has woken a second one.
    bool small() const;
    void run(size_t task) noexcept;
    // Joins what the tasks found in their chunks.
    void finish() noexcept;

private:
    void pack() noexcept;
    // First number of a row in query and mixed; row: T*share rows of a key head.
    int64_t place(int64_t batch, int64_t kv_head, int64_t row) const noexcept;
    void write(int64_t batch, int64_t kv_head, int64_t row, const float* sums, float total) noexcept;
    int64_t head_of(int64_t kv_head, int64_t row) const noexcept { return kv_head * share_ + row % share_; }

    Problem problem_;
    Instructions instructions_;
    int64_t share_, rows_, longest_;    // G; rows G*T of a key head, (t,g) in this order; places seen by any
    int64_t blocks_, groups_;           // of 8 rows; groups of blocks, one per task
    int64_t chunks_, chunk_;            // of places; places in each
    std::unique_ptr<float[]> queries_;  // (B,Hkv,blocks,d,8), scaled
    // Weighted values; largest logit and sum of weights: (B,Hkv,blocks,chunks,8,d or 2). With one chunk only
    // (tasks,8,d or 2), since what a block has found is written before the next one is run.
    std::vector<float> sums_, state_;
    std::vector<float> rotated_;   // one query
    std::vector<int32_t> limits_;  // (B,blocks,8) places seen
};

}  // namespace edgeprune::attention
