// IEEE 754 binary16 <-> float. Every half has an exact float; a float rounds to the nearest half, ties to even.
#pragma once

#include <cstdint>

namespace edgeprune {

float half_to_float(uint16_t half) noexcept;
uint16_t float_to_half(float value) noexcept;

}  // namespace edgeprune
