// The Split pre-tokenizer with a literal pattern ({"String": text}), in all behaviours of Hugging Face tokenizers.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace edgeprune {

// What becomes of the matches: cut out, pieces of their own, joined to a neighbour, or joined among themselves.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct LiteralSplit {
    std::string pattern;  // never empty
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;  // the text between the matches counts as the match
};

// By its name in tokenizer.json.
std::optional<SplitBehavior> split_behavior(std::string_view name);

// The pieces in order, none of them empty. Views into `text`.
std::vector<std::string_view> split_at_literal(const LiteralSplit& split, std::string_view text);

}  // namespace edgeprune
