// Matrix products with weights in 8 bits, inputs rounded to 8 bits row by row, on onnxruntime's threads; no onnxruntime
// in here.
#pragma once

#include <memory>
#include <vector>

#include "int8_kernels.h"

namespace edgeprune::int8 {

// Weights lie in panels of 32 columns, what is left over filled with factors of 0. A panel is 32 factors (float32), the
// 32 sums of its columns' whole numbers (int32), then the depth, filled up to a multiple of 64, in groups of four rows:
// byte 4 c + i of the j-th 128 is 128 plus the whole number, -127 to 127, of column c in row 4 j + i. A weight is
// factor times whole number.
struct Problem {
    int64_t rows, depth, columns;  // of input and output; depth: rows of the weights
    const float* input;            // (rows,depth)
    const uint8_t* weights;        // (panels,panel_bytes(depth)); factors are finite
    const float* bias;             // (columns), or null
    float* output;                 // (rows,columns), written
    float swish = 0;               // not 0: a result y becomes y / (1 + e^(-swish y))
};

constexpr int64_t panels_of(int64_t columns) {
    return (columns + kPanel - 1) / kPanel;
}
constexpr int64_t filled(int64_t depth) {
    return (depth + kDeep - 1) / kDeep * kDeep;
}
constexpr int64_t panel_bytes(int64_t depth) {
    return kPanel * (8 + filled(depth));
}

// Inputs as whole numbers, with a step and a zero for each row: its least number and 0 are -128 at the least, its
// largest 127. A row with what is no finite number becomes NaN. Any thread may run any task, each once.
class Inputs {
public:
    // May throw std::bad_alloc.
    Inputs(const Problem& problem, const Form& form);
    size_t tasks() const { return tasks_; }
    bool small() const;  // whether one thread is done before it has woken a second one
    void run(size_t task) noexcept;
    // `count` rows from `first` on.
    Rows rows(int64_t first, int64_t count) const noexcept;

private:
    Problem problem_;
    const Form& form_;
    int64_t stride_;
    size_t tasks_;
    std::unique_ptr<uint8_t[]> whole_;  // (rows,stride)
    std::vector<Rounded> rounded_;      // (rows)
};

// The products, cut into tasks of whole panels, when all tasks of the inputs are done.
class Plan {
public:
    Plan(const Problem& problem, const Form& form, const Inputs& inputs);
    size_t tasks() const { return tasks_; }
    bool small() const;
    void run(size_t task) const noexcept;

private:
    void run_panel(int64_t index) const noexcept;
    void run_rows(int64_t first, int64_t count, const Panel& panel, int64_t column) const noexcept;

    Problem problem_;
    const Form& form_;
    const Inputs& inputs_;
    int64_t panels_;
    size_t tasks_;
};

}  // namespace edgeprune::int8
