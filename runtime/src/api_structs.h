// struct_size: how structs of the C interface grow without breaking a caller that was compiled with another header.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "error.h"

namespace edgeprune {

// No struct of this interface will ever reach this; a larger size is rubbish, and nothing behind it is read.
constexpr size_t kLargestStruct = 1024;

// A size that some header can have given out: not 0, not cut inside a field. It may exceed today's struct.
template <class Struct>
size_t checked_size(const Struct& value, const char* name) {
    const size_t size = value.struct_size;
    if (size >= sizeof(size_t) && size <= kLargestStruct && size % alignof(Struct) == 0) return size;
    throw Error(EP_ERROR_INVALID_ARGUMENT,
                std::string(name) + ".struct_size is " + std::to_string(size) + ": call " + name + "_init first");
}

// Fields of a newer header must hold their default, 0: this library cannot do what they ask for.
template <class Struct>
void check_newer_fields(const Struct& given, size_t size, const char* name) {
    if (size <= sizeof(Struct)) return;
    const auto* const bytes = reinterpret_cast<const unsigned char*>(&given);
    if (std::all_of(bytes + sizeof(Struct), bytes + size, [](unsigned char byte) { return byte == 0; })) return;
    throw Error(EP_ERROR_INVALID_ARGUMENT,
                std::string(name) + " sets a field that this library (" EDGEPRUNE_VERSION +
                    ") does not know: install the library that belongs to the program's header, or leave the field 0");
}

// The caller's fields over the defaults, which are 0; null: the defaults. A struct of an older header is shorter.
template <class Struct>
Struct read_struct(const Struct* given, const char* name) {
    Struct value{};
    value.struct_size = sizeof(Struct);
    if (given == nullptr) return value;
    const size_t size = checked_size(*given, name);
    check_newer_fields(*given, size, name);
    std::memcpy(&value, given, std::min(size, sizeof(Struct)));
    return value;
}

// Fills the caller's struct as far as both sides know its fields.
template <class Struct>
void write_struct(Struct& out, Struct value, const char* name) {
    const size_t size = checked_size(out, name);
    value.struct_size = size;
    std::memcpy(&out, &value, std::min(size, sizeof(Struct)));
}

}  // namespace edgeprune
