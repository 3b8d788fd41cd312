// Driven by tests/runtime/test_product_kernel.py: tasks of one product with weights in 4 bits run on four threads, by
// each set of instructions that may be chosen, compared with sums in double of what weights and rounded inputs mean.
// Prints the largest difference of each, relative to the largest result. Then what is no finite number.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "on_threads.h"
#include "product_kernel.h"

using edgeprune::product::Instructions;
using edgeprune::product::Plan;

namespace {

// Weights of random bits and scales, and what they mean.
struct Weights {
    std::vector<uint8_t> stored;
    std::vector<double> values;  // (depth,columns)
};

Weights drawn(std::mt19937& random, int64_t depth, int64_t columns) {
    const int64_t tiles = (columns + 15) / 16, blocks = (depth + 31) / 32;
    const int64_t tile_bytes = 64 + blocks * 272;
    Weights made{std::vector<uint8_t>(static_cast<size_t>(tiles * tile_bytes)),
                 std::vector<double>(static_cast<size_t>(depth * columns))};
    std::uniform_int_distribution<int> byte(0, 255);
    std::uniform_real_distribution<float> factor(0, 0.0002F);
    for (uint8_t& each : made.stored) each = static_cast<uint8_t>(byte(random));
    for (int64_t column = 0; column < tiles * 16; ++column) {
        uint8_t* const tile = made.stored.data() + column / 16 * tile_bytes;
        const int64_t c = column % 16;
        const float each = column < columns ? factor(random) : 0;
        std::memcpy(tile + 4 * c, &each, sizeof each);
        for (int64_t row = 0; column < columns && row < depth; ++row) {
            const uint8_t* const block = tile + 64 + row / 32 * 272;
            const int64_t k = row % 32;
            const uint8_t two = block[16 + k / 8 * 64 + 4 * c + k % 4];
            const int bits = k % 8 < 4 ? two & 15 : two >> 4;
            const double scale = static_cast<int8_t>(block[c]);
            made.values[static_cast<size_t>(row * columns + column)] = double{each} * scale * (bits - 8.0);
        }
    }
    return made;
}

// Each block of 32 rounded to 127 steps of its largest magnitude.
std::vector<double> rounded(const std::vector<float>& input, int64_t rows, int64_t depth) {
    std::vector<double> values(input.size());
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t first = 0; first < depth; first += 32) {
            const int64_t end = std::min(depth, first + 32);
            float largest = 0;
            for (int64_t i = first; i < end; ++i) largest = std::max(largest, std::fabs(input[row * depth + i]));
            const float step = largest / 127;
            for (int64_t i = first; i < end; ++i) {
                const float steps = largest > 0 ? input[row * depth + i] * (127 / largest) : 0;
                values[row * depth + i] = double{step} * std::nearbyint(steps);
            }
        }
    }
    return values;
}

double difference(int64_t rows, int64_t depth, int64_t columns, Instructions instructions) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    std::vector<float> input(static_cast<size_t>(rows * depth));
    for (float& value : input) value = normal(random);
    std::fill_n(input.begin(), rows > 0 ? std::min<int64_t>(32, depth) : 0, 0.0F);  // a block of nothing
    const Weights weights = drawn(random, depth, columns);
    std::vector<float> output(static_cast<size_t>(rows * columns), -1);
    run_on_threads(Plan({rows, depth, columns, input.data(), weights.stored.data(), output.data()}, instructions));
    const std::vector<double> exact = rounded(input, rows, depth);
    double most = 0, largest = 0;
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t column = 0; column < columns; ++column) {
            double sum = 0;
            for (int64_t i = 0; i < depth; ++i) sum += exact[row * depth + i] * weights.values[i * columns + column];
            most = std::max(most, std::fabs(sum - output[row * columns + column]));
            largest = std::max(largest, std::fabs(sum));
        }
    }
    return largest > 0 ? most / largest : most;
}

// A row with what is no finite number is NaN, the row behind it is not; the least numbers are nothing.
bool handles_the_odd(Instructions instructions) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
    std::mt19937 random(5);
    const Weights weights = drawn(random, 64, 16);
    bool right = true;
    for (const float odd : {nan, infinite, -infinite}) {
        std::vector<float> input(128, 1.0F), output(32);
        input[40] = odd;
        Plan plan({2, 64, 16, input.data(), weights.stored.data(), output.data()}, instructions);
        for (size_t task = 0; task < plan.tasks(); ++task) plan.run(task);
        for (int64_t i = 0; i < 16; ++i) right = right && std::isnan(output[i]) && std::isfinite(output[16 + i]);
    }
    std::vector<float> input(64, 1e-40F), output(16, 1);
    Plan plan({1, 64, 16, input.data(), weights.stored.data(), output.data()}, instructions);
    for (size_t task = 0; task < plan.tasks(); ++task) plan.run(task);
    for (const float value : output) right = right && value == 0;
    return right;
}

}  // namespace

int main() {
    constexpr int64_t kShapes[][3] = {{1, 32, 16}, {1, 2048, 2048}, {1, 5632, 256}, {3, 100, 37},
                                      {2, 31, 1},  {1, 1, 17},      {7, 576, 1000}, {0, 64, 16}};
    for (const Instructions each : {Instructions::chosen, Instructions::avx2, Instructions::portable}) {
        for (const auto& shape : kShapes) {
            const double away = difference(shape[0], shape[1], shape[2], each);
            std::printf("%d: %ld x %ld x %ld: %.3g\n", static_cast<int>(each), static_cast<long>(shape[0]),
                        static_cast<long>(shape[1]), static_cast<long>(shape[2]), away);
            if (!(away < 2e-6)) return 1;
        }
        if (!handles_the_odd(each)) return 2;
    }
    return 0;
}
