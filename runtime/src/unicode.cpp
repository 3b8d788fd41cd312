#include "unicode.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace edgeprune {
namespace {

struct CodePointRange {
    char32_t first, last;
};

#include "unicode_classes.inc"

template <size_t Count>
bool contains(const CodePointRange (&ranges)[Count], char32_t code_point) {
    const auto* after = std::upper_bound(std::begin(ranges), std::end(ranges), code_point,
                                         [](char32_t c, const CodePointRange& range) { return c < range.first; });
    return after != std::begin(ranges) && code_point <= std::prev(after)->last;
}

SplitClass look_up(char32_t code_point) {
    if (contains(kSplitLetter, code_point)) return SplitClass::kLetter;
    if (contains(kSplitSpace, code_point)) return SplitClass::kSpace;
    if (contains(kSplitNumber, code_point)) return SplitClass::kNumber;
    return SplitClass::kOther;
}

// Most text is ASCII: its classes are looked up once.
std::array<SplitClass, 128> ascii_classes() {
    std::array<SplitClass, 128> classes{};
    for (char32_t c = 0; c < 128; ++c) classes[c] = look_up(c);
    return classes;
}

}  // namespace

SplitClass split_class(char32_t code_point) {
    static const std::array<SplitClass, 128> ascii = ascii_classes();
    return code_point < 128 ? ascii[code_point] : look_up(code_point);
}

bool is_digit_for_digits(char32_t code_point) {
    return contains(kDigit, code_point);
}
bool is_word_character(char32_t code_point) {
    return contains(kWord, code_point);
}
bool is_stripped_space(char32_t code_point) {
    return contains(kStrip, code_point);
}

}  // namespace edgeprune
