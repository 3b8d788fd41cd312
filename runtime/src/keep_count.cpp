#include "keep_count.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace edgeprune {

int64_t keep_count(int64_t visual_tokens, double ratio) {
    constexpr int64_t kExact = int64_t{1} << 53;  // beyond, a double cannot hold N
    if (visual_tokens < 1 || visual_tokens > kExact) return -1;
    if (!(ratio > 0.0 && ratio <= 1.0)) return -1;  // also not a number
    const double product = static_cast<double>(visual_tokens) * ratio;
    return std::max(int64_t{1}, static_cast<int64_t>(std::floor(product + 0.5)));
}

int64_t mass_count(const std::vector<float>& scores, double mass) {
    const auto usable = [](float score) { return std::isfinite(score) && score >= 0.0f; };
    if (scores.empty() || !std::all_of(scores.begin(), scores.end(), usable)) return -1;
    if (!(mass > 0.0 && mass <= 1.0)) return -1;
    std::vector<float> falling = scores;
    std::sort(falling.begin(), falling.end(), std::greater<float>());
    double total = 0;
    for (const float score : falling) total += static_cast<double>(score);
    const double wanted = mass * total;
    double sum = 0;
    for (size_t k = 0; k < falling.size(); ++k) {
        sum += static_cast<double>(falling[k]);
        if (sum >= wanted) return static_cast<int64_t>(k) + 1;
    }
    return static_cast<int64_t>(falling.size());
}

}  // namespace edgeprune
