// How the doubles of the driver and of TensorRT call the same memory: an "address on the GPU" is the real one with a
// bit that no pointer has, so that code which takes it for memory of the program dies at once.
#pragma once

#include <cstdint>

namespace edgeprune::doubles {

constexpr uint64_t kOnDevice = uint64_t{1} << 60;

inline void* real(uint64_t address) {
    return reinterpret_cast<void*>(address & ~kOnDevice);
}
inline bool on_device(uint64_t address) {
    return (address & kOnDevice) != 0;
}

}  // namespace edgeprune::doubles
