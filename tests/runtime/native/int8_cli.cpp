// Driven by tests/runtime/test_int8_kernels.py: tasks of one product with weights in 8 bits run on four threads, by
// each form that the processor has, compared with sums in double of what weights and rounded inputs mean. Prints the
// largest difference of each, relative to the largest result. Then what is no finite number.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "int8_product.h"
#include "on_threads.h"

using namespace edgeprune::int8;

namespace {

// Weights of random bits and factors, and what they mean.
struct Weights {
    std::vector<uint8_t> stored;
    std::vector<double> values;  // (depth,columns)
};

Weights drawn(std::mt19937& random, int64_t depth, int64_t columns, bool extreme) {
    const int64_t panels = (columns + 31) / 32, deep = (depth + 63) / 64 * 64, bytes = 256 + 32 * deep;
    Weights made{std::vector<uint8_t>(static_cast<size_t>(panels * bytes), 128),
                 std::vector<double>(static_cast<size_t>(depth * columns))};
    std::uniform_int_distribution<int> whole(-127, 127);
    std::uniform_real_distribution<float> factor(0, 0.0002F);
    for (int64_t column = 0; column < columns; ++column) {
        uint8_t* const panel = made.stored.data() + column / 32 * bytes;
        const int64_t c = column % 32;
        const float each = factor(random);
        int32_t sum = 0;
        for (int64_t row = 0; row < depth; ++row) {
            const int value = extreme ? 127 : whole(random);
            panel[256 + row / 4 * 128 + 4 * c + row % 4] = static_cast<uint8_t>(value + 128);
            made.values[static_cast<size_t>(row * columns + column)] = double{each} * value;
            sum += value;
        }
        std::memcpy(panel + 4 * c, &each, sizeof each);
        std::memcpy(panel + 128 + 4 * c, &sum, sizeof sum);
    }
    for (int64_t c = (columns - 1) % 32 + 1; c < 32; ++c) {
        const int32_t nothing = 0;
        std::memcpy(made.stored.data() + (panels - 1) * bytes + 4 * c, &nothing, sizeof nothing);
        std::memcpy(made.stored.data() + (panels - 1) * bytes + 128 + 4 * c, &nothing, sizeof nothing);
    }
    return made;
}

// Each row rounded to 255 steps from its least to its largest number, 0 among them.
std::vector<double> rounded(const std::vector<float>& input, int64_t rows, int64_t depth) {
    std::vector<double> values(input.size());
    for (int64_t row = 0; row < rows; ++row) {
        const float* const from = input.data() + row * depth;
        const float least = std::min(0.0F, *std::min_element(from, from + depth));
        const float step = std::max(0.0F, *std::max_element(from, from + depth)) / 255 - least / 255;
        if (step == 0) continue;
        const float factor = 1 / step;
        const float zero = std::nearbyint(-128 - least * factor);
        for (int64_t i = 0; i < depth; ++i) {
            const float whole = std::clamp(std::nearbyint(from[i] * factor) + zero, -128.0F, 127.0F);
            values[static_cast<size_t>(row * depth + i)] = double{step} * (whole - zero);
        }
    }
    return values;
}

void multiply(const Problem& problem, const Form& form) {
    Inputs inputs(problem, form);
    run_on_threads(inputs);
    Plan plan(problem, form, inputs);
    run_on_threads(plan);
}

// A product that is drawn anew by every call, the same for the same shape.
struct Drawn {
    Drawn(int64_t row_count, int64_t row_depth, int64_t column_count, bool extreme, float swish_factor)
        : rows(row_count), depth(row_depth), columns(column_count), swish(swish_factor) {
        std::normal_distribution<float> normal(0.3F);
        for (float& value : input) value = extreme ? -1.0F : normal(random);
        for (float& value : bias) value = normal(random);
        if (rows > 1) std::fill_n(input.begin(), depth, 0.0F);  // a row of nothing
        weights = drawn(random, depth, columns, extreme);
    }

    std::vector<float> by(const Form& form) const {
        std::vector<float> output(static_cast<size_t>(rows * columns), -1);
        multiply({rows, depth, columns, input.data(), weights.stored.data(), bias.data(), output.data(), swish}, form);
        return output;
    }

    int64_t rows, depth, columns;
    float swish;
    std::mt19937 random{11};
    std::vector<float> input = std::vector<float>(static_cast<size_t>(rows * depth));
    std::vector<float> bias = std::vector<float>(static_cast<size_t>(columns));
    Weights weights;
};

double difference(const Drawn& drawn, const std::vector<float>& output) {
    const std::vector<double> exact = rounded(drawn.input, drawn.rows, drawn.depth);
    double most = 0, largest = 0;
    for (int64_t row = 0; row < drawn.rows; ++row) {
        for (int64_t column = 0; column < drawn.columns; ++column) {
            double sum = drawn.bias[static_cast<size_t>(column)];
            for (int64_t i = 0; i < drawn.depth; ++i)
                sum += exact[row * drawn.depth + i] * drawn.weights.values[i * drawn.columns + column];
            if (drawn.swish != 0) sum /= 1 + std::exp(-drawn.swish * sum);
            most = std::max(most, std::fabs(sum - output[row * drawn.columns + column]));
            largest = std::max(largest, std::fabs(sum));
        }
    }
    return largest > 0 ? most / largest : most;
}

// A row with what is no finite number is NaN, the row behind it is not; the least numbers are nothing.
bool handles_the_odd(const Form& form) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
    std::mt19937 random(5);
    const Weights weights = drawn(random, 70, 16, false);
    bool right = true;
    for (const float odd : {nan, infinite, -infinite}) {
        for (const size_t place : {size_t{40}, size_t{69}}) {
            std::vector<float> input(140, 1.0F), output(32);
            input[place] = odd;
            multiply({2, 70, 16, input.data(), weights.stored.data(), nullptr, output.data()}, form);
            for (int64_t i = 0; i < 16; ++i) right = right && std::isnan(output[i]) && std::isfinite(output[16 + i]);
        }
    }
    std::vector<float> input(70, 1e-40F), output(16, 1);
    multiply({1, 70, 16, input.data(), weights.stored.data(), nullptr, output.data()}, form);
    for (const float value : output) right = right && value == 0;
    return right;
}

}  // namespace

int main() {
    constexpr int64_t kShapes[][3] = {{1, 64, 32},   {1, 2048, 512}, {37, 256, 96}, {3, 100, 37},
                                      {2, 31, 1},    {5, 1, 17},     {12, 70, 33},  {25, 1024, 130},
                                      {64, 576, 64}, {0, 64, 16},    {11, 64, 32}};
    for (const Instructions each : {Instructions::chosen, Instructions::avx512_vnni, Instructions::avx_vnni,
                                    Instructions::avx2, Instructions::dot_product, Instructions::portable}) {
        const Form* const one = form(each);
        if (one == nullptr) continue;
        for (const auto& shape : kShapes) {
            for (const auto [extreme, swish] : {std::pair(false, 0.0F), {false, 1.702F}, {true, 0.0F}}) {
                const Drawn drawn(shape[0], shape[1], shape[2], extreme, swish);
                const std::vector<float> found = drawn.by(*one);
                const double away = difference(drawn, found);
                std::printf("%s: %ld x %ld x %ld: %.3g\n", one->name, static_cast<long>(shape[0]),
                            static_cast<long>(shape[1]), static_cast<long>(shape[2]), away);
                if (!(away < 2e-6)) return 1;
                const std::vector<float> plain = drawn.by(*form(Instructions::portable));
                if (swish == 0 && std::memcmp(found.data(), plain.data(), found.size() * sizeof(float)) != 0) return 3;
            }
        }
        if (!handles_the_odd(*one)) return 2;
    }
    return 0;
}
