#include "float16.h"

#include <cmath>
#include <cstring>

namespace edgeprune {

float half_to_float(uint16_t half) noexcept {
    const uint32_t sign = (half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fu;
    const uint32_t fraction = half & 0x3ffu;
    if (exponent == 0) {
        const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
        return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t wide = exponent == 0x1fu ? 0xffu : exponent + (127 - 15);
    const uint32_t bits = sign | (wide << 23) | (fraction << 13);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t float_to_half(float value) noexcept {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    const float magnitude = std::fabs(value);
    if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00u);
    // 65520 lies half way between the largest half, 65504, and the next power of two.
    if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00u);
    // Below 2^-14 halves are multiples of 2^-24; nearbyint rounds ties to even, and 1024 is the smallest normal half.
    if (magnitude < 0x1p-14f)
        return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f)));
    bits &= 0x7fffffffu;
    const uint32_t odd = (bits >> 13) & 1u;
    bits += 0xfffu + odd;
    return static_cast<uint16_t>(sign | ((bits >> 13) - ((127 - 15) << 10)));
}

}  // namespace edgeprune
