#include "keep_count.h"

#include <algorithm>
#include <cmath>

namespace edgeprune {

int64_t keep_count(int64_t visual_tokens, double ratio) {
    constexpr int64_t kExact = int64_t{1} << 53;  // beyond, a double cannot hold N
    if (visual_tokens < 1 || visual_tokens > kExact) return -1;
    if (!(ratio > 0.0 && ratio <= 1.0)) return -1;  // also not a number
    const double product = static_cast<double>(visual_tokens) * ratio;
    return std::max(int64_t{1}, static_cast<int64_t>(std::floor(product + 0.5)));
}

}  // namespace edgeprune
