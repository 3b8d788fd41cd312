// Driven by tests/runtime/test_encoder_kernels.py: an encoder's attention run on four threads, by each form that the
// processor has, compared with sums in double of what its operands are when they are rounded. Prints the difference of
// each, relative to the result.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "encoder_attention.h"
#include "on_threads.h"

using namespace edgeprune::encoder;

namespace {

float to_bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

double operand(float value, Operands operands) {
    return operands == Operands::bfloat16 ? to_bfloat16(value) : value;
}

// One row of one head in double.
std::vector<double> row_of(const Problem& p, int64_t batch, int64_t head, int64_t row) {
    const int64_t columns = p.heads * p.width;
    const float* const query = p.query + (batch * p.asking + row) * columns + head * p.width;
    const int64_t start = batch * p.asked * columns + head * p.width;
    std::vector<double> weights(static_cast<size_t>(p.asked)), mixed(static_cast<size_t>(p.width));
    for (int64_t j = 0; j < p.asked; ++j) {
        for (int64_t i = 0; i < p.width; ++i)
            weights[j] +=
                operand(query[i] * p.scale, p.operands) * operand(p.keys[start + j * columns + i], p.operands);
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& weight : weights) total += weight = std::exp(weight - largest);
    for (int64_t j = 0; j < p.asked; ++j) {
        const double weight = operand(static_cast<float>(weights[j]), p.operands);
        for (int64_t i = 0; i < p.width; ++i)
            mixed[i] += weight / total * operand(p.values[start + j * columns + i], p.operands);
    }
    return mixed;
}

double difference(Problem p, const Form& form) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0, 1.5F);
    const auto drawn = [&](int64_t tokens) {
        std::vector<float> made(static_cast<size_t>(p.batch * tokens * p.heads * p.width));
        for (float& value : made) value = normal(random);
        return made;
    };
    const std::vector<float> query = drawn(p.asking), keys = drawn(p.asked), values = drawn(p.asked);
    std::vector<float> mixed(query.size(), -1);
    p.query = query.data();
    p.keys = keys.data();
    p.values = values.data();
    p.mixed = mixed.data();
    Packed packed(p, form);
    run_on_threads(packed);
    Plan plan(p, form, packed);
    run_on_threads(plan);
    double away = 0, size = 0;
    for (int64_t batch = 0; batch < p.batch; ++batch) {
        for (int64_t head = 0; head < p.heads; ++head) {
            for (int64_t row = 0; row < p.asking; ++row) {
                const std::vector<double> wanted = row_of(p, batch, head, row);
                const float* const found = mixed.data() + (batch * p.asking + row) * p.heads * p.width + head * p.width;
                for (int64_t i = 0; i < p.width; ++i) {
                    away += (wanted[i] - found[i]) * (wanted[i] - found[i]);
                    size += wanted[i] * wanted[i];
                }
            }
        }
    }
    return std::sqrt(away / size);
}

}  // namespace

int main() {
    constexpr int64_t kShapes[][5] = {{1, 2, 577, 577, 64}, {2, 3, 5, 5, 4},    {1, 2, 13, 33, 72},
                                      {1, 1, 1, 1, 1},      {1, 2, 50, 17, 31}, {1, 1, 7, 64, 600}};
    for (const Operands operands : {Operands::float32, Operands::bfloat16}) {
        for (const Instructions each : {Instructions::chosen, Instructions::avx512_bf16, Instructions::avx512,
                                        Instructions::avx2, Instructions::portable}) {
            const Form* const one = form(operands, each);
            if (one == nullptr) continue;
            for (const auto& s : kShapes) {
                const Problem problem{
                    s[0],     s[1],    s[2],    s[3],    s[4],   1 / std::sqrt(static_cast<float>(s[4])),
                    operands, nullptr, nullptr, nullptr, nullptr};
                const double away = difference(problem, *one);
                std::printf("%s, %s: %ld x %ld x %ld: %.3g\n", one->name,
                            operands == Operands::float32 ? "float32" : "bfloat16", static_cast<long>(s[2]),
                            static_cast<long>(s[3]), static_cast<long>(s[4]), away);
                // a weight half way between two numbers of bfloat16 may round either way
                if (!(away < (operands == Operands::float32 ? 2e-6 : 2e-4))) return 1;
            }
        }
    }
    return 0;
}
