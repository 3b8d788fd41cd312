// Pre-tokenizers of tokenizer.json: they cut a text into the words that the model merges.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tokenizer_literal.h"
#include "tokenizer_split.h"

namespace edgeprune {

struct Piece {
    std::string text;
    bool at_start;  // its first character is the first of the encoded text
};

struct PreTokenizeStep {
    enum class Kind { kByteLevel, kDigits, kMetaspace, kSplit, kLiteralSplit };
    enum class Prepend { kFirst, kAlways, kNever };
    Kind kind = Kind::kByteLevel;
    bool add_prefix_space = false;  // ByteLevel
    bool individual_digits = false;
    std::string replacement;  // Metaspace
    Prepend prepend = Prepend::kAlways;
    bool split = true;                           // Metaspace: cut before each replacement
    SplitPattern pattern = SplitPattern::kNone;  // ByteLevel and Split
    LiteralSplit literal;                        // of kLiteralSplit
};

class PreTokenizer {
public:
    PreTokenizer() = default;
    explicit PreTokenizer(std::vector<PreTokenizeStep> steps) : steps_(std::move(steps)) {}
    std::vector<std::string> apply(Piece text) const;

private:
    std::vector<PreTokenizeStep> steps_;
};

// The printable character that stands for a byte in a byte-level vocabulary (GPT-2), as UTF-8.
const std::string& byte_level_character(unsigned char byte);
// The byte that a code point stands for; -1 when it stands for none.
int byte_level_byte(char32_t code_point);

}  // namespace edgeprune
