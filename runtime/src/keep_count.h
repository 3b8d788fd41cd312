// The only place in C++ where a keep ratio becomes a count; edgeprune/keep.py is the same rule in Python.
#pragma once

#include <cstdint>

namespace edgeprune {

// max(1, floor(N * ratio + 0.5)) in double; -1 unless N >= 1 and 0 < ratio <= 1.
int64_t keep_count(int64_t visual_tokens, double ratio);

}  // namespace edgeprune
