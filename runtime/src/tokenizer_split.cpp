#include "tokenizer_split.h"

#include <cstddef>

#include "unicode.h"
#include "utf8.h"

namespace edgeprune {
namespace {

constexpr std::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::string_view kClipRegex = R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
constexpr std::string_view kClipSpecialRegex =
    R"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";

// The text as code points. The match_ functions give the index behind the match that begins at `i`, or `i` when there
// is none; each is one alternative of a pattern.
class Matcher {
public:
    explicit Matcher(std::string_view text) : text_(text) {
        for (size_t at = 0; at < text.size();) {
            offsets_.push_back(at);
            points_.push_back(read_utf8(text, at));
            classes_.push_back(split_class(points_.back()));
        }
        offsets_.push_back(text.size());
    }

    // Where nothing matches, a character is left out.
    template <typename Match>
    std::vector<std::string_view> cut(Match match) const {
        std::vector<std::string_view> pieces;
        for (size_t i = 0; i < points_.size();) {
            const size_t end = match(i);
            if (end > i) pieces.push_back(text_.substr(offsets_[i], offsets_[end] - offsets_[i]));
            i = end > i ? end : i + 1;
        }
        return pieces;
    }

    size_t match_gpt2(size_t i) const {
        if (const size_t end = match_contraction(i, false); end > i) return end;
        if (const size_t end = match_spaced_run(i); end > i) return end;
        return match_space(i);
    }

    // Llama-3's and Qwen2's pattern differ in the longest group of numbers only.
    size_t match_llama3(size_t i, size_t longest_number) const {
        if (const size_t end = match_contraction(i, true); end > i) return end;
        if (const size_t end = match_prefixed_letters(i); end > i) return end;
        if (const size_t end = run(i, SplitClass::kNumber, longest_number); end > i) return end;
        if (const size_t end = match_symbols(i); end > i) return end;
        if (const size_t end = match_line_ends(i); end > i) return end;
        return match_space(i);
    }

    size_t match_clip(size_t i, bool specials) const {
        if (specials) {
            for (const std::string_view token : {"<|startoftext|>", "<|endoftext|>"})
                if (text_.substr(offsets_[i], token.size()) == token) return i + token.size();
        }
        if (const size_t end = match_contraction(i, false); end > i) return end;
        if (is(i, SplitClass::kSpace)) return i;
        return run(i, classes_[i], is(i, SplitClass::kNumber) ? 1 : static_cast<size_t>(-1));
    }

private:
    bool is(size_t i, SplitClass wanted) const { return i < classes_.size() && classes_[i] == wanted; }
    bool is_line_end(size_t i) const { return i < points_.size() && (points_[i] == '\r' || points_[i] == '\n'); }

    size_t run(size_t i, SplitClass wanted, size_t longest = static_cast<size_t>(-1)) const {
        size_t end = i;
        while (end - i < longest && is(end, wanted)) ++end;
        return end;
    }

    // Lower-case letter for comparing; U+017F (long s) folds to s.
    char32_t folded(size_t i, bool any_case) const {
        const char32_t c = i < points_.size() ? points_[i] : 0;
        if (!any_case) return c;
        return c == 0x17F ? U's' : c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
    }

    // 's|'t|'re|'ve|'m|'ll|'d
    size_t match_contraction(size_t i, bool any_case) const {
        if (points_[i] != '\'') return i;
        const char32_t first = folded(i + 1, any_case);
        const char32_t second = folded(i + 2, any_case);
        if (first == 's' || first == 't' || first == 'm' || first == 'd') return i + 2;
        const bool pair =
            (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
        return pair ? i + 3 : i;
    }

    //  ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+
    size_t match_spaced_run(size_t i) const {
        const size_t begin = points_[i] == ' ' ? i + 1 : i;
        if (begin == points_.size() || is(begin, SplitClass::kSpace)) return i;
        return run(begin, classes_[begin]);
    }

    // [^\r\n\p{L}\p{N}]?\p{L}+
    size_t match_prefixed_letters(size_t i) const {
        const bool prefix = !is(i, SplitClass::kLetter) && !is(i, SplitClass::kNumber) && !is_line_end(i);
        const size_t begin = prefix ? i + 1 : i;
        const size_t end = run(begin, SplitClass::kLetter);
        return end > begin ? end : i;
    }

    //  ?[^\s\p{L}\p{N}]+[\r\n]*
    size_t match_symbols(size_t i) const {
        const size_t begin = points_[i] == ' ' ? i + 1 : i;
        size_t end = run(begin, SplitClass::kOther);
        if (end == begin) return i;
        while (is_line_end(end)) ++end;
        return end;
    }

    // \s*[\r\n]+ : up to the last line end of the white space
    size_t match_line_ends(size_t i) const {
        size_t end = run(i, SplitClass::kSpace);
        while (end > i && !is_line_end(end - 1)) --end;
        return end;
    }

    // \s+(?!\S)|\s+ : the last character of white space before a word stays with the word
    size_t match_space(size_t i) const {
        const size_t end = run(i, SplitClass::kSpace);
        return end < points_.size() && end - i > 1 ? end - 1 : end;
    }

    std::string_view text_;
    std::vector<size_t> offsets_;
    std::vector<char32_t> points_;
    std::vector<SplitClass> classes_;
};

}  // namespace

SplitPattern known_split_pattern(std::string_view regex) {
    if (regex == kLlama3Regex) return SplitPattern::kLlama3;
    if (regex == kQwen2Regex) return SplitPattern::kQwen2;
    if (regex == kClipRegex) return SplitPattern::kClip;
    if (regex == kClipSpecialRegex) return SplitPattern::kClipSpecial;
    return SplitPattern::kNone;
}

std::vector<std::string_view> split_by(SplitPattern pattern, std::string_view text) {
    if (pattern == SplitPattern::kNone || text.empty()) return {text};
    const Matcher matcher(text);
    if (pattern == SplitPattern::kGpt2) return matcher.cut([&](size_t i) { return matcher.match_gpt2(i); });
    if (pattern == SplitPattern::kClip || pattern == SplitPattern::kClipSpecial)
        return matcher.cut([&](size_t i) { return matcher.match_clip(i, pattern == SplitPattern::kClipSpecial); });
    const size_t longest_number = pattern == SplitPattern::kLlama3 ? 3 : 1;
    return matcher.cut([&](size_t i) { return matcher.match_llama3(i, longest_number); });
}

}  // namespace edgeprune
