// Driven by tests/runtime/test_attention.py: tasks of one attention run on four threads, in both forms of a task (a row
// alone, rows in lanes), with the instructions chosen here and with the portable ones, compared with sums in double.
// Prints the largest difference of each.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "attention_kernel.h"

using edgeprune::attention::Plan;
using edgeprune::attention::Problem;

namespace {

std::vector<float> drawn(std::mt19937& random, int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

// One row of the result, in double.
std::vector<double> expected(const Problem& p, int64_t batch, int64_t head, int64_t fresh) {
    const float* query = p.query + ((batch * p.heads + head) * p.fresh + fresh) * p.width;
    const int64_t first = (batch * p.kv_heads + head / (p.heads / p.kv_heads)) * p.capacity;
    std::vector<double> sums(static_cast<size_t>(p.width));
    double total = 0;
    for (int64_t j = 0; j <= p.positions[batch * p.fresh + fresh]; ++j) {
        double logit = 0;
        for (int64_t i = 0; i < p.width; ++i) logit += double{query[i]} * p.keys[(first + j) * p.width + i];
        const double weight = std::exp(logit * p.scale);
        total += weight;
        for (int64_t i = 0; i < p.width; ++i) sums[i] += weight * p.values[(first + j) * p.width + i];
    }
    for (double& sum : sums) sum /= total;
    return sums;
}

void run_on_threads(Plan& plan) {
    std::vector<std::thread> threads;
    for (size_t thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&plan, thread] {
            for (size_t task = thread; task < plan.tasks(); task += 4) plan.run(task);
        });
    }
    for (std::thread& thread : threads) thread.join();
    plan.finish();
}

double difference(int64_t heads, int64_t kv_heads, int64_t fresh, int64_t past, int64_t width, bool portable) {
    std::mt19937 random(7);
    const int64_t batch = 2, capacity = past + fresh + batch;
    const auto query = drawn(random, batch * heads * fresh * width);
    const auto keys = drawn(random, batch * kv_heads * capacity * width);
    const auto values = drawn(random, batch * kv_heads * capacity * width);
    std::vector<int64_t> positions;
    for (int64_t b = 0; b < batch; ++b) {
        for (int64_t t = 0; t < fresh; ++t) positions.push_back(past + b + t);
    }
    std::vector<float> mixed(query.size(), NAN);
    const Problem problem{batch,
                          heads,
                          kv_heads,
                          fresh,
                          capacity,
                          width,
                          1 / std::sqrt(static_cast<float>(width)),
                          query.data(),
                          keys.data(),
                          values.data(),
                          positions.data(),
                          mixed.data()};
    Plan plan(problem, portable);
    run_on_threads(plan);
    double most = 0;
    const float* found = mixed.data();
    for (int64_t row = 0; row < batch * heads * fresh; ++row) {
        for (const double value : expected(problem, row / fresh / heads, row / fresh % heads, row % fresh)) {
            const double off = std::fabs(value - *found++);
            most = off <= most ? most : off;  // a NaN counts
        }
    }
    return most;
}

double largest(bool portable) {
    double most = 0;
    for (const int64_t past : {0, 5, 63, 64, 700}) {
        for (const int64_t width : {6, 8, 64, 72, 100}) {
            most =
                std::max({most, difference(8, 1, 1, past, width, portable), difference(3, 3, 1, past, width, portable),
                          difference(6, 2, 7, past, width, portable), difference(5, 5, 40, past, width, portable)});
        }
    }
    return most;
}

}  // namespace

int main() {
    const double chosen = largest(false), portable = largest(true);
    std::printf("%.2g %.2g\n", chosen, portable);
    return chosen < 2e-6 && portable < 2e-6 ? 0 : 1;
}
