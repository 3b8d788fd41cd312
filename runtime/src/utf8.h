// UTF-8: reading and writing code points, repairing malformed text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace edgeprune {

constexpr char32_t kReplacementCodePoint = 0xFFFD;

enum class Utf8State { kComplete, kMalformed, kTruncated };

// One step through bytes that may be malformed. `length` bytes belong together: one character, or one maximal part of
// an ill-formed sequence (Unicode 15, section 3.9, "substitution of maximal subparts"). kTruncated: the bytes end
// inside a sequence that is well-formed so far.
struct Utf8Unit {
    Utf8State state;
    size_t length;
    char32_t code_point;  // of a complete character
};

Utf8Unit read_utf8_unit(std::string_view bytes, size_t at);

// The code point at `at` of well-formed text; `at` moves behind it.
char32_t read_utf8(std::string_view text, size_t& at);
void append_utf8(std::string& out, char32_t code_point);
bool is_valid_utf8(std::string_view bytes);

// Bytes of the character that begins with `lead` in well-formed text.
constexpr size_t utf8_length(unsigned char lead) {
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

}  // namespace edgeprune
