#include "tokenizer_normalize.h"

#include <algorithm>

#include "unicode.h"
#include "unicode_lower.h"
#include "unicode_nfc.h"
#include "utf8.h"

namespace edgeprune {
namespace {

// An empty text stays empty.
NormalizedText prepend(const NormalizedText& text, const std::string& content) {
    if (text.text.empty()) return text;
    NormalizedText out;
    out.append(content, text.origin.front(), false);
    out.append_range(text, 0, text.text.size());
    return out;
}

// Content takes its origin from the last byte it replaces, as in Hugging Face tokenizers; it is plain as soon as one of
// the bytes [begin, end) is.
void append_content(NormalizedText& out, const NormalizedText& text, size_t begin, size_t end,
                    const std::string& content) {
    const auto first = text.plain.begin() + static_cast<ptrdiff_t>(begin);
    const auto last = text.plain.begin() + static_cast<ptrdiff_t>(end);
    out.append(content, text.origin[end - 1], std::find(first, last, true) != last);
}

NormalizedText replace(const NormalizedText& text, const std::string& pattern, const std::string& content) {
    NormalizedText out;
    size_t begin = 0;
    for (size_t found; (found = text.text.find(pattern, begin)) != std::string::npos; begin = found + pattern.size()) {
        out.append_range(text, begin, found);
        append_content(out, text, found, found + pattern.size(), content);
    }
    out.append_range(text, begin, text.text.size());
    return out;
}

// The pattern \s+.
NormalizedText replace_space(const NormalizedText& text, const std::string& content) {
    NormalizedText out;
    for (size_t at = 0; at < text.text.size();) {
        const size_t begin = at;
        size_t end = at;  // behind the white space that begins here
        while (at < text.text.size() && split_class(read_utf8(text.text, at)) == SplitClass::kSpace) end = at;
        if (end > begin) append_content(out, text, begin, end, content);
        // `at` is behind the first character that is no white space, or at the end
        out.append_range(text, end, at);
    }
    return out;
}

NormalizedText apply_step(const NormalizeStep& step, const NormalizedText& text) {
    switch (step.kind) {
        case NormalizeStep::Kind::kPrepend:
            return prepend(text, step.content);
        case NormalizeStep::Kind::kReplace:
            return replace(text, step.pattern, step.content);
        case NormalizeStep::Kind::kReplaceSpace:
            return replace_space(text, step.content);
        case NormalizeStep::Kind::kNfc:
            return to_nfc(text);
        case NormalizeStep::Kind::kLowercase:
            return to_lower(text);
    }
    return text;
}

}  // namespace

void NormalizedText::append(std::string_view bytes, uint32_t bytes_origin, bool bytes_plain) {
    text.append(bytes);
    origin.resize(text.size(), bytes_origin);
    plain.resize(text.size(), bytes_plain);
}

void NormalizedText::append_range(const NormalizedText& from, size_t begin, size_t end) {
    const auto first = static_cast<ptrdiff_t>(begin);
    const auto last = static_cast<ptrdiff_t>(end);
    text.append(from.text, begin, end - begin);
    origin.insert(origin.end(), from.origin.begin() + first, from.origin.begin() + last);
    plain.insert(plain.end(), from.plain.begin() + first, from.plain.begin() + last);
}

void Normalizer::apply(NormalizedText& text) const {
    for (const NormalizeStep& step : steps_) text = apply_step(step, text);
}

std::string Normalizer::apply(std::string_view text) const {
    NormalizedText normalized;
    normalized.append(text, 0, false);
    apply(normalized);
    return normalized.text;
}

}  // namespace edgeprune
