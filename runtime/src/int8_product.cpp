#include "int8_product.h"

#include <algorithm>
#include <cstring>

#include "ceiling.h"

namespace edgeprune::int8 {
namespace {

constexpr int64_t kRoundedAtOnce = 1 << 16;  // numbers of a task
constexpr int64_t kSmall = 1 << 20;          // products that one thread does before it has woken a second one
constexpr int64_t kTasksWanted = 16;         // enough for several threads to end at the same time
constexpr int64_t kHeadBytes = kPanel * 8;

}  // namespace

Inputs::Inputs(const Problem& problem, const Form& form)
    : problem_(problem),
      form_(form),
      stride_(filled(problem.depth) + kDeep),  // rows that lie a power of two apart would share a set of the cache
      whole_(new uint8_t[static_cast<size_t>(problem.rows * stride_)]),
      rounded_(static_cast<size_t>(problem.rows)) {
    const int64_t wanted = ceiling(problem.rows * problem.depth, kRoundedAtOnce);
    tasks_ = static_cast<size_t>(std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, problem.rows)));
}

bool Inputs::small() const {
    return tasks_ == 1;
}

void Inputs::run(size_t task) noexcept {
    const auto tasks = static_cast<int64_t>(tasks_), index = static_cast<int64_t>(task), depth = problem_.depth;
    for (int64_t row = index * problem_.rows / tasks; row < (index + 1) * problem_.rows / tasks; ++row) {
        uint8_t* const whole = whole_.get() + row * stride_;
        rounded_[static_cast<size_t>(row)] = form_.round(problem_.input + row * depth, depth, whole);
        std::memset(whole + depth, 0, static_cast<size_t>(stride_ - depth));
    }
}

Rows Inputs::rows(int64_t first, int64_t count) const noexcept {
    return {whole_.get() + first * stride_, stride_, count, rounded_.data() + first};
}

Plan::Plan(const Problem& problem, const Form& form, const Inputs& inputs)
    : problem_(problem), form_(form), inputs_(inputs), panels_(panels_of(problem.columns)) {
    tasks_ = static_cast<size_t>(std::clamp<int64_t>(panels_, 1, kTasksWanted));
}

bool Plan::small() const {
    return problem_.rows * problem_.depth * problem_.columns < kSmall;
}

void Plan::run(size_t task) const noexcept {
    const auto tasks = static_cast<int64_t>(tasks_), index = static_cast<int64_t>(task);
    for (int64_t panel = index * panels_ / tasks; panel < (index + 1) * panels_ / tasks; ++panel) run_panel(panel);
}

// Rows are shared out evenly: no block of them is much smaller than the others. While one is multiplied, its share of
// the next panel is fetched.
void Plan::run_panel(int64_t index) const noexcept {
    const int64_t bytes = panel_bytes(problem_.depth), column = index * kPanel;
    const uint8_t* const at = problem_.weights + index * bytes;
    alignas(64) float head[3 * kPanel]{};
    std::memcpy(head, at, kHeadBytes);
    alignas(64) int32_t sums[kPanel];
    std::memcpy(sums, at + kPanel * sizeof(float), sizeof sums);
    float* const bias = head + 2 * kPanel;
    if (problem_.bias != nullptr)
        std::copy_n(problem_.bias + column, std::min(kPanel, problem_.columns - column), bias);
    const int64_t blocks = ceiling(problem_.rows, form_.most), next = index + 1 < panels_ ? bytes : 0;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = block * problem_.rows / blocks, end = (block + 1) * problem_.rows / blocks;
        const int64_t from = block * next / blocks, to = (block + 1) * next / blocks;
        const Panel panel{
            head,     sums, bias, problem_.swish, at + kHeadBytes, filled(problem_.depth) / kGroup, at + bytes + from,
            to - from};
        run_rows(first, end - first, panel, column);
    }
}

void Plan::run_rows(int64_t first, int64_t count, const Panel& panel, int64_t column) const noexcept {
    const Rows rows = inputs_.rows(first, count);
    const int64_t left = problem_.columns - column;
    float* const to = problem_.output + first * problem_.columns + column;
    if (left >= kPanel) return form_.multiply(rows, panel, to, problem_.columns);
    alignas(64) float whole[kMost * kPanel];
    form_.multiply(rows, panel, whole, kPanel);
    for (int64_t row = 0; row < count; ++row) std::copy_n(whole + row * kPanel, left, to + row * problem_.columns);
}

}  // namespace edgeprune::int8
