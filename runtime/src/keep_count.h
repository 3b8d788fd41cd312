// The only place in C++ where a keep ratio or a share of the scores becomes a count; edgeprune/keep.py has the same
// rules in Python.
#pragma once

#include <cstdint>
#include <vector>

namespace edgeprune {

// max(1, floor(N * ratio + 0.5)) in double; -1 unless N >= 1 and 0 < ratio <= 1.
int64_t keep_count(int64_t visual_tokens, double ratio);

// The least K whose K highest scores sum to at least `mass` of the sum of all, added in double from the highest down.
// 1 when all are zero; -1 for a negative or non-finite score, none at all, or a mass outside
// (0, 1].
int64_t mass_count(const std::vector<float>& scores, double mass);

}  // namespace edgeprune
