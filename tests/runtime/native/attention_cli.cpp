// Driven by tests/runtime/test_attention_kernel.py: tasks of one attention run on four threads, in both forms of a task
// (a row alone, rows in lanes), with all instructions that the processor has, with less and with the portable ones,
// over a cache of floats and one of halves, heads first and tokens first with queries that are still to be rotated,
// compared with sums in double of what the cache holds. Prints the largest difference of each. Then every half, there
// and back, and what has no half.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "attention_kernel.h"
#include "float16.h"
#include "on_threads.h"

using edgeprune::attention::Half;
using edgeprune::attention::Instructions;
using edgeprune::attention::Plan;
using edgeprune::attention::Problem;
using edgeprune::attention::Stored;
using edgeprune::attention::to_halves;

namespace {

std::vector<float> drawn(std::mt19937& random, int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

// Where a row of query and mixed begins.
int64_t place(const Problem& p, int64_t batch, int64_t head, int64_t fresh) {
    const int64_t row =
        p.tokens_first ? (batch * p.fresh + fresh) * p.heads + head : (batch * p.heads + head) * p.fresh + fresh;
    return row * p.width;
}

// A query as the logits take it, in double.
std::vector<double> turned(const Problem& p, int64_t batch, int64_t head, int64_t fresh) {
    const float* const row = p.query + place(p, batch, head, fresh);
    std::vector<double> query(row, row + p.width);
    if (p.cosines == nullptr) return query;
    const int64_t half = p.width / 2, first = (batch * p.fresh + fresh) * half;
    for (int64_t i = 0; i < half; ++i) {
        const double a = row[i], b = row[half + i], cosine = p.cosines[first + i], sine = p.sines[first + i];
        query[static_cast<size_t>(i)] = a * cosine - b * sine;
        query[static_cast<size_t>(half + i)] = b * cosine + a * sine;
    }
    return query;
}

// One row of the result, in double.
std::vector<double> expected(const Problem& p, const float* keys, const float* values, int64_t batch, int64_t head,
                             int64_t fresh) {
    const std::vector<double> query = turned(p, batch, head, fresh);
    const int64_t first = (batch * p.kv_heads + head / (p.heads / p.kv_heads)) * p.capacity;
    std::vector<double> sums(static_cast<size_t>(p.width));
    double total = 0;
    for (int64_t j = 0; j <= p.positions[batch * p.fresh + fresh]; ++j) {
        double logit = 0;
        for (int64_t i = 0; i < p.width; ++i) logit += query[static_cast<size_t>(i)] * keys[(first + j) * p.width + i];
        const double weight = std::exp(logit * p.scale);
        total += weight;
        for (int64_t i = 0; i < p.width; ++i) sums[i] += weight * values[(first + j) * p.width + i];
    }
    for (double& sum : sums) sum /= total;
    return sums;
}

void run_whole(Plan& plan) {
    run_on_threads(plan);
    plan.finish();
}

// How a run works.
struct Form {
    bool halves, rotated;  // rotated: by the kernel, and tokens first
    Instructions instructions;
};

// The values as halves; `values` becomes what those mean.
std::vector<Half> rounded(std::vector<float>& values, Instructions instructions) {
    std::vector<Half> halves(values.size());
    if (!to_halves(values.data(), static_cast<int64_t>(values.size()), halves.data(), instructions)) std::exit(2);
    std::transform(halves.begin(), halves.end(), values.begin(), edgeprune::half_to_float);
    return halves;
}

double difference(int64_t heads, int64_t kv_heads, int64_t fresh, int64_t past, int64_t width, Form form) {
    std::mt19937 random(7);
    const int64_t batch = 2, capacity = past + fresh + batch;
    const auto query = drawn(random, batch * heads * fresh * width);
    auto keys = drawn(random, batch * kv_heads * capacity * width);
    auto values = drawn(random, batch * kv_heads * capacity * width);
    std::vector<Half> half_keys, half_values;
    if (form.halves) half_keys = rounded(keys, form.instructions), half_values = rounded(values, form.instructions);
    const auto angles = drawn(random, batch * fresh * (width / 2));
    std::vector<float> cosines(angles.size()), sines(angles.size());
    std::transform(angles.begin(), angles.end(), cosines.begin(), [](float angle) { return std::cos(angle); });
    std::transform(angles.begin(), angles.end(), sines.begin(), [](float angle) { return std::sin(angle); });
    std::vector<int64_t> positions;
    for (int64_t b = 0; b < batch; ++b) {
        for (int64_t t = 0; t < fresh; ++t) positions.push_back(past + b + t);
    }
    std::vector<float> mixed(query.size(), NAN);
    const float scale = 1 / std::sqrt(static_cast<float>(width));
    Problem problem{batch,        heads,           kv_heads,    fresh,         capacity,         width,       scale,
                    query.data(), Stored::float32, keys.data(), values.data(), positions.data(), mixed.data()};
    if (form.halves) {
        problem.stored = Stored::float16, problem.keys = half_keys.data(), problem.values = half_values.data();
    }
    if (form.rotated) problem.tokens_first = true, problem.cosines = cosines.data(), problem.sines = sines.data();
    Plan plan(problem, form.instructions);
    run_whole(plan);
    double most = 0;
    for (int64_t row = 0; row < batch * heads * fresh; ++row) {
        const int64_t b = row / fresh / heads, head = row / fresh % heads;
        const auto wanted = expected(problem, keys.data(), values.data(), b, head, row % fresh);
        const float* found = mixed.data() + place(problem, b, head, row % fresh);
        for (const double value : wanted) {
            const double off = std::fabs(value - *found++);
            most = off <= most ? most : off;  // a NaN counts
        }
    }
    return most;
}

double largest(bool halves, bool rotated, Instructions instructions) {
    const Form form{halves, rotated, instructions};
    double most = 0;
    for (const int64_t past : {0, 5, 63, 64, 700}) {
        // 272: above what one of the forms has room for
        for (const int64_t width : {6, 8, 64, 72, 80, 100, 272}) {
            if (width > 100 && past > 63) continue;
            most = std::max({most, difference(8, 1, 1, past, width, form), difference(3, 3, 1, past, width, form),
                             difference(8, 2, 1, past, width, form), difference(6, 2, 7, past, width, form),
                             difference(5, 5, 40, past, width, form)});
        }
    }
    return most;
}

bool fits(float value, Instructions instructions) {
    std::vector<float> values(19, 1.0F);  // vectors of 8, and a rest
    Half halves[19];
    for (float& each : values) {
        each = value;
        if (to_halves(values.data(), 19, halves, instructions) != (std::fabs(value) < 65520)) return false;
        each = 1.0F;
    }
    return true;
}

// Every finite half comes back as it was, and so does what lies just beside it and half way to the next one.
bool halves_hold(Instructions instructions) {
    std::vector<float> values;
    std::vector<Half> wanted;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<Half>(bits);
        if ((bits & 0x7c00) == 0x7c00) continue;
        const float value = edgeprune::half_to_float(half);
        for (const float near : {value, std::nextafter(value, 0.0F), std::nextafter(value, 2 * value)}) {
            values.push_back(near);
            wanted.push_back(edgeprune::float_to_half(near));
        }
        const float next = edgeprune::half_to_float(static_cast<Half>(bits + 1));
        values.push_back(std::isinf(next) ? value : (value + next) / 2);
        wanted.push_back(edgeprune::float_to_half(values.back()));
    }
    std::vector<Half> found(values.size());
    const bool all = to_halves(values.data(), static_cast<int64_t>(values.size()), found.data(), instructions);
    const std::vector<float> at_end{65504, -65504, 65519.99F, 65520, -65520, 1e30F, INFINITY, -INFINITY, NAN};
    return all && found == wanted &&
           std::all_of(at_end.begin(), at_end.end(), [&](float value) { return fits(value, instructions); });
}

}  // namespace

int main() {
    bool held = true;
    for (const Instructions each : {Instructions::chosen, Instructions::avx2, Instructions::portable}) {
        bool close = true;
        for (const bool halves : {false, true}) {
            const double most = largest(halves, false, each), rotated = largest(halves, true, each);
            std::printf("%.2g %.2g ", most, rotated);
            close = close && most < 3e-6 && rotated < 3e-6;
        }
        const bool numbers = halves_hold(each);
        std::printf("%s\n", numbers ? "halves hold" : "halves differ");
        held = held && close && numbers;
    }
    return held ? 0 : 1;
}
