#pragma once

#include <cstdint>

namespace edgeprune {

// How many steps hold a value that is not negative.
constexpr int64_t ceiling(int64_t value, int64_t step) noexcept {
    return (value + step - 1) / step;
}

}  // namespace edgeprune
