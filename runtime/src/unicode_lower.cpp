#include "unicode_lower.h"

#include <algorithm>
#include <iterator>

#include "utf8.h"

namespace edgeprune {
namespace {

struct LowerRun {
    char32_t first, last, step;
    int32_t delta;
};

struct LowerPair {
    char32_t upper;
    char32_t lower[2];
};

#include "unicode_lowercase.inc"

void append_lower(std::string& out, char32_t c) {
    for (const LowerPair& pair : kLowerPairs) {
        if (pair.upper != c) continue;
        append_utf8(out, pair.lower[0]);
        append_utf8(out, pair.lower[1]);
        return;
    }
    const auto* after = std::upper_bound(std::begin(kLowerRuns), std::end(kLowerRuns), c,
                                         [](char32_t point, const LowerRun& run) { return point < run.first; });
    if (after != std::begin(kLowerRuns)) {
        const LowerRun& run = *std::prev(after);
        if (c <= run.last && (c - run.first) % run.step == 0) {
            c = static_cast<char32_t>(static_cast<int32_t>(c) + run.delta);
        }
    }
    append_utf8(out, c);
}

}  // namespace

NormalizedText to_lower(const NormalizedText& text) {
    NormalizedText out;
    for (size_t at = 0; at < text.text.size();) {
        const size_t begin = at;
        std::string lower;
        append_lower(lower, read_utf8(text.text, at));
        out.append(lower, text.origin[begin], text.plain[begin]);
    }
    return out;
}

}  // namespace edgeprune
