// Normalizers of tokenizer.json: Prepend, Replace with a literal pattern or runs of white space, NFC, Lowercase, and
// sequences of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace edgeprune {

// A text on its way through the normalizers, with what must be known about each of its bytes later.
struct NormalizedText {
    std::string text;
    std::vector<uint32_t> origin;  // offset in the encoded text of the character a byte came from
    std::vector<bool> plain;       // whether a byte came from a plain span

    void append(std::string_view bytes, uint32_t bytes_origin, bool bytes_plain);
    void append_range(const NormalizedText& from, size_t begin, size_t end);
};

struct NormalizeStep {
    enum class Kind { kPrepend, kReplace, kReplaceSpace, kNfc, kLowercase };
    Kind kind;
    std::string pattern;  // of kReplace, never empty
    std::string content;  // of kPrepend, kReplace and kReplaceSpace
};

class Normalizer {
public:
    Normalizer() = default;
    explicit Normalizer(std::vector<NormalizeStep> steps) : steps_(std::move(steps)) {}

    void apply(NormalizedText& text) const;
    std::string apply(std::string_view text) const;

private:
    std::vector<NormalizeStep> steps_;
};

}  // namespace edgeprune
