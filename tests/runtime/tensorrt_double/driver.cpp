// A test double of libcuda.so.1, NOT a GPU: "device memory" is memory of the program behind addresses that cannot be
// read. Memory is filled with noise when it is handed out and when it is freed. Everything is done at once.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "memory.h"

using edgeprune::doubles::kOnDevice;
using edgeprune::doubles::on_device;
using edgeprune::doubles::real;

namespace {

std::mutex mutex;
std::map<uint64_t, size_t> blocks;
size_t held = 0, most_held = 0, allocations = 0;
thread_local int pushed = 0;

constexpr int kBadValue = 1, kNoMemory = 2, kNoContext = 201;

// The environment variable caps the memory.
size_t limit() {
    const char* text = std::getenv("DOUBLE_DEVICE_BYTES");
    return text == nullptr ? SIZE_MAX : std::strtoull(text, nullptr, 10);
}

// Whether all of a range was handed out, and a context is current.
int usable(uint64_t address, size_t bytes) {
    if (pushed == 0) return kNoContext;
    const std::lock_guard<std::mutex> lock(mutex);
    auto block = blocks.upper_bound(address);
    if (!on_device(address) || block == blocks.begin()) return kBadValue;
    --block;
    return address + bytes <= block->first + block->second ? 0 : kBadValue;
}

}  // namespace

extern "C" {

int cuInit(unsigned) {
    return 0;
}
int cuDeviceGet(int* device, int index) {
    return *device = index;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 8 : 6;
    return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &blocks;
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int) {
    return 0;
}
int cuCtxPushCurrent_v2(void*) {
    ++pushed;
    return 0;
}
int cuCtxPopCurrent_v2(void** context) {
    *context = &blocks;
    return --pushed < 0 ? kNoContext : 0;
}
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    if (pushed == 0) return kNoContext;
    const std::lock_guard<std::mutex> lock(mutex);
    if (bytes == 0) return kBadValue;
    if (held + bytes > limit()) return kNoMemory;
    void* memory = std::malloc(bytes);
    if (memory == nullptr) return kNoMemory;
    std::memset(memory, 0x7d, bytes);
    *address = reinterpret_cast<uint64_t>(memory) | kOnDevice;
    blocks[*address] = bytes;
    held += bytes;
    if (held > most_held) most_held = held;
    ++allocations;
    return 0;
}
int cuMemFree_v2(uint64_t address) {
    if (pushed == 0) return kNoContext;
    const std::lock_guard<std::mutex> lock(mutex);
    const auto block = blocks.find(address);
    if (block == blocks.end()) return kBadValue;
    std::memset(real(address), 0x5e, block->second);
    held -= block->second;
    std::free(real(address));
    blocks.erase(block);
    return 0;
}
int cuStreamCreate(void** stream, unsigned) {
    *stream = &held;
    return pushed > 0 ? 0 : kNoContext;
}
int cuStreamDestroy_v2(void*) {
    return 0;
}
int cuStreamSynchronize(void*) {
    return pushed > 0 ? 0 : kNoContext;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    const int result = usable(to, bytes);
    if (result == 0) std::memcpy(real(to), from, bytes);
    return result;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    const int result = usable(from, bytes);
    if (result == 0) std::memcpy(to, real(from), bytes);
    return result;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
    const int result = usable(to, bytes) | usable(from, bytes);
    const uint64_t apart = to > from ? to - from : from - to;
    if (result == 0 && apart < bytes) return kBadValue;  // a real copy would be undefined
    if (result == 0) std::memcpy(real(to), real(from), bytes);
    return result;
}
int cuGetErrorString(int result, const char** text) {
    *text = result == kNoMemory ? "out of memory (double)" : "invalid value (double)";
    return 0;
}

// For the test: blocks in use, bytes, the most bytes there were, allocations so far.
void double_memory(size_t* figures) {
    const std::lock_guard<std::mutex> lock(mutex);
    figures[0] = blocks.size();
    figures[1] = held;
    figures[2] = most_held;
    figures[3] = allocations;
}
}
