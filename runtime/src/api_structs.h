// struct_size: how structs of the C interface grow without breaking a caller that was compiled earlier.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>

#include "error.h"

namespace edgeprune {

// A size this library can have given out: not 0, not cut inside a field, not larger than today's struct.
template <class Struct>
size_t checked_size(const Struct& value, const char* name) {
    const size_t size = value.struct_size;
    if (size >= sizeof(size_t) && size <= sizeof(Struct) && size % alignof(Struct) == 0) return size;
    throw Error(EP_ERROR_INVALID_ARGUMENT, std::string(name) + ".struct_size is " + std::to_string(size) + ": call " +
                                               name + "_init first, with a header no newer than this library (" +
                                               std::to_string(sizeof(Struct)) + ")");
}

// The caller's fields over the defaults; null: the defaults.
template <class Struct>
Struct read_struct(const Struct* given, void (*init)(Struct*), const char* name) {
    Struct value;
    init(&value);
    if (given != nullptr) std::memcpy(&value, given, checked_size(*given, name));
    return value;
}

// Fills the caller's struct as far as its struct_size reaches.
template <class Struct>
void write_struct(Struct& out, Struct value, const char* name) {
    const size_t size = checked_size(out, name);
    value.struct_size = size;
    std::memcpy(&out, &value, size);
}

}  // namespace edgeprune
