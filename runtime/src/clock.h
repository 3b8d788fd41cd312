// The clock of deadlines and of every time in ep_stats.
#pragma once

#include <chrono>

namespace edgeprune {

using Clock = std::chrono::steady_clock;

// Milliseconds since `start`.
inline double elapsed_ms(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

}  // namespace edgeprune
