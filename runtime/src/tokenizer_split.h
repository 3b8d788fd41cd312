// The split patterns of the supported tokenizers, matched by hand: Hugging Face runs them as regular expressions.
#pragma once

#include <string_view>
#include <vector>

namespace edgeprune {

enum class SplitPattern {
    kNone,        // one piece
    kGpt2,        // the ByteLevel pre-tokenizer's own
    kLlama3,      // numbers in groups of up to three
    kQwen2,       // numbers one by one
    kClip,        // CLIP: no word holds white space, which is left out
    kClipSpecial  // the same with its two special tokens as words
};

// The pattern with this text in a Split pre-tokenizer; kNone when it is not known.
SplitPattern known_split_pattern(std::string_view regex);

// The matches of the pattern in well-formed text, in order; together they cover it, white space for CLIP's excepted.
std::vector<std::string_view> split_by(SplitPattern pattern, std::string_view text);

}  // namespace edgeprune
