#include "tokenizer_literal.h"

#include <algorithm>
#include <array>
#include <utility>

namespace edgeprune {
namespace {

struct Stretch {
    size_t begin, end;
    bool match;
};

// Matches and what lies between them; together they cover the text.
std::vector<Stretch> find_stretches(const LiteralSplit& split, std::string_view text) {
    std::vector<Stretch> stretches;
    size_t begin = 0;
    while (begin < text.size()) {
        const size_t found = std::min(text.find(split.pattern, begin), text.size());
        if (begin < found) stretches.push_back({begin, found, split.invert});
        if (found == text.size()) break;
        begin = found + split.pattern.size();
        stretches.push_back({found, begin, !split.invert});
    }
    return stretches;
}

// Whether `next` joins the piece that ends with `previous`.
bool joins(SplitBehavior behavior, const Stretch& previous, const Stretch& next) {
    switch (behavior) {
        case SplitBehavior::kMergedWithPrevious:
            return next.match && !previous.match;
        case SplitBehavior::kMergedWithNext:
            return previous.match && !next.match;
        case SplitBehavior::kContiguous:
            return next.match == previous.match;
        default:
            return false;
    }
}

}  // namespace

std::optional<SplitBehavior> split_behavior(std::string_view name) {
    static constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kNames = {
        {{"Removed", SplitBehavior::kRemoved},
         {"Isolated", SplitBehavior::kIsolated},
         {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
         {"MergedWithNext", SplitBehavior::kMergedWithNext},
         {"Contiguous", SplitBehavior::kContiguous}}};
    for (const auto& [known, behavior] : kNames)
        if (known == name) return behavior;
    return std::nullopt;
}

std::vector<std::string_view> split_at_literal(const LiteralSplit& split, std::string_view text) {
    const std::vector<Stretch> stretches = find_stretches(split, text);
    std::vector<std::string_view> pieces;
    size_t begin = 0;
    for (size_t i = 0; i < stretches.size(); ++i) {
        const bool last = i + 1 == stretches.size();
        if (!last && joins(split.behavior, stretches[i], stretches[i + 1])) continue;
        const bool removed = split.behavior == SplitBehavior::kRemoved && stretches[i].match;
        if (!removed) pieces.push_back(text.substr(begin, stretches[i].end - begin));
        begin = stretches[i].end;
    }
    return pieces;
}

}  // namespace edgeprune
