#include "unicode_nfc.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "utf8.h"

namespace edgeprune {
namespace {

struct Decomposition {
    char32_t code_point;
    unsigned start, length;  // in kDecomposedText
};
struct Composition {
    char32_t first, second, composite;
};
struct CombiningClass {
    char32_t code_point;
    unsigned char value;
};

#include "unicode_normalization.inc"

// Hangul syllables are arithmetic (Unicode 15, section 3.12).
constexpr char32_t kSyllableBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161, kTailBase = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

struct Unit {
    char32_t code_point;
    unsigned char combining_class;
    uint32_t origin;
    bool plain;
};

template <typename Row, size_t Count>
const Row* find_row(const Row (&rows)[Count], char32_t code_point) {
    const Row* row = std::lower_bound(std::begin(rows), std::end(rows), code_point,
                                      [](const Row& other, char32_t c) { return other.code_point < c; });
    return row != std::end(rows) && row->code_point == code_point ? row : nullptr;
}

unsigned char combining_class(char32_t code_point) {
    const CombiningClass* row = find_row(kCombiningClasses, code_point);
    return row == nullptr ? 0 : row->value;
}

void decompose(char32_t code_point, uint32_t origin, bool plain, std::vector<Unit>& units) {
    const auto put = [&](char32_t part) { units.push_back({part, combining_class(part), origin, plain}); };
    if (code_point >= kSyllableBase && code_point < kSyllableBase + kSyllables) {
        const char32_t index = code_point - kSyllableBase;
        put(kLeadBase + index / (kVowels * kTails));
        put(kVowelBase + index / kTails % kVowels);
        if (index % kTails != 0) put(kTailBase + index % kTails);
    } else if (const Decomposition* row = find_row(kDecompositions, code_point)) {
        std::for_each_n(kDecomposedText + row->start, row->length, put);
    } else {
        put(code_point);
    }
}

// Marks between two starters go into the order of their classes.
void order_marks(std::vector<Unit>& units) {
    const auto is_starter = [](const Unit& unit) { return unit.combining_class == 0; };
    for (auto begin = units.begin(); begin != units.end();) {
        const auto end = std::find_if(begin, units.end(), is_starter);
        std::stable_sort(begin, end,
                         [](const Unit& a, const Unit& b) { return a.combining_class < b.combining_class; });
        begin = std::find_if_not(end, units.end(), is_starter);
    }
}

// 0 when the two do not compose.
char32_t compose_pair(char32_t first, char32_t second) {
    if (first >= kLeadBase && first < kLeadBase + kLeads && second >= kVowelBase && second < kVowelBase + kVowels)
        return kSyllableBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTails;
    const bool open_syllable =
        first >= kSyllableBase && first < kSyllableBase + kSyllables && (first - kSyllableBase) % kTails == 0;
    if (open_syllable && second > kTailBase && second < kTailBase + kTails) return first + (second - kTailBase);
    const auto key = std::make_pair(first, second);
    const Composition* row = std::lower_bound(std::begin(kCompositions), std::end(kCompositions), key,
                                              [](const Composition& other, const auto& wanted) {
                                                  return std::make_pair(other.first, other.second) < wanted;
                                              });
    const bool found = row != std::end(kCompositions) && row->first == first && row->second == second;
    return found ? row->composite : 0;
}

// A character joins the last starter unless one of the same or a higher class stands between them.
std::vector<Unit> compose(const std::vector<Unit>& units) {
    std::vector<Unit> out;
    out.reserve(units.size());
    size_t starter = units.size();  // index in `out`; none yet
    for (const Unit& unit : units) {
        const bool adjacent = starter + 1 == out.size();
        if (starter < out.size() && (adjacent || out.back().combining_class < unit.combining_class)) {
            if (const char32_t composite = compose_pair(out[starter].code_point, unit.code_point)) {
                out[starter].code_point = composite;
                out[starter].plain = out[starter].plain || unit.plain;
                continue;
            }
        }
        if (unit.combining_class == 0) starter = out.size();
        out.push_back(unit);
    }
    return out;
}

}  // namespace

NormalizedText to_nfc(const NormalizedText& text) {
    // Nothing below U+0300 changes: no byte of it is above 0xCB.
    const auto is_low = [](char byte) { return static_cast<unsigned char>(byte) < 0xCC; };
    if (std::all_of(text.text.begin(), text.text.end(), is_low)) return text;
    std::vector<Unit> units;
    units.reserve(text.text.size());
    for (size_t at = 0; at < text.text.size();) {
        const size_t begin = at;
        decompose(read_utf8(text.text, at), text.origin[begin], text.plain[begin], units);
    }
    order_marks(units);
    NormalizedText out;
    for (const Unit& unit : compose(units)) {
        std::string character;
        append_utf8(character, unit.code_point);
        out.append(character, unit.origin, unit.plain);
    }
    return out;
}

}  // namespace edgeprune
