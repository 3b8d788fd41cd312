// One matrix product with weights in 4 bits, on one processor core per task; no onnxruntime in here. The weights are
// read once, from front to back, and multiplied in integers: what bounds it is the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgeprune::product {

constexpr int64_t kColumns = 16;  // of a tile
constexpr int64_t kBlock = 32;    // rows of the weights that share a scale, per column
constexpr int64_t kBlockBytes = kColumns * (1 + kBlock / 2);

// Weights lie in tiles of 16 columns, what is left over filled with scales of 0. A tile is 16 factors (float32), then
// blocks of 32 rows. A block is 16 scales (int8), then 4 times 64 bytes: byte 4 c + i of the j-th holds the weights of
// column c in row 8 j + i (low bits) and 8 j + 4 + i (high bits). A weight is factor * scale * (bits - 8).
struct Problem {
    int64_t rows, depth, columns;  // of input and output; depth: rows of the weights
    const float* input;            // (rows,depth)
    const uint8_t* weights;        // (tiles,tile_bytes(depth)); factors are finite
    float* output;                 // (rows,columns), written
};

constexpr int64_t tiles_of(int64_t columns) {
    return (columns + kColumns - 1) / kColumns;
}
constexpr int64_t blocks_of(int64_t depth) {
    return (depth + kBlock - 1) / kBlock;
}

constexpr int64_t tile_bytes(int64_t depth) {
    return kColumns * 4 + blocks_of(depth) * kBlockBytes;
}

enum class Instructions { chosen, avx2, portable };

// The work cut into tasks of whole tiles. Any thread may run any task, each once. Inputs are rounded to 8 bits per
// block of 32 (the largest magnitude is 127); a block with what is no finite number makes its row NaN. May throw
// std::bad_alloc in the constructor only.
class Plan {
public:
    // instructions: the best that the processor has, or less than that.
    explicit Plan(const Problem& problem, Instructions instructions = Instructions::chosen);
    size_t tasks() const { return tasks_; }
    // Whether one thread is done before it has woken a second one.
    bool small() const;
    void run(size_t task) const noexcept;

private:
    void round_inputs() noexcept;
    // The tiles from `first` on that are read together, for one row.
    void run_group(int64_t first, int64_t row) const noexcept;

    Problem problem_;
    Instructions instructions_;
    int64_t tiles_, blocks_;
    size_t tasks_;
    std::vector<int8_t> whole_;     // (rows,blocks,32)
    std::vector<float> scales_;     // (rows,blocks)
    std::vector<int32_t> offsets_;  // (rows,blocks): -8 times the sum of a block of whole_
};

}  // namespace edgeprune::product
