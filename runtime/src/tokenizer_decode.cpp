#include "tokenizer_decode.h"

#include <algorithm>
#include <optional>

#include "tokenizer_pretokenize.h"
#include "utf8.h"

namespace edgeprune {
namespace {

std::string replace_all(const std::string& text, const std::string& pattern, std::string_view content) {
    std::string out;
    size_t begin = 0;
    for (size_t found; (found = text.find(pattern, begin)) != std::string::npos; begin = found + pattern.size()) {
        out.append(text, begin, found - begin);
        out.append(content);
    }
    out.append(text, begin, std::string::npos);
    return out;
}

std::string strip_token(std::string_view text, const TokenDecodeStep& step) {
    const std::string& content = step.content;
    const auto begins = [&] { return text.substr(0, content.size()) == content; };
    const auto ends = [&] {
        return text.size() >= content.size() && text.substr(text.size() - content.size()) == content;
    };
    for (size_t i = 0; i < step.start && begins(); ++i) text.remove_prefix(content.size());
    for (size_t i = 0; i < step.stop && ends(); ++i) text.remove_suffix(content.size());
    return std::string(text);
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// The byte of a token such as "<0x0A>". A plus sign counts as a leading zero, as in Rust's from_str_radix.
std::optional<char> byte_of_token(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
    const int high = token[3] == '+' ? 0 : hex_digit(token[3]);
    const int low = hex_digit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(static_cast<unsigned char>(high * 16 + low));
}

}  // namespace

TokenDecoder::TokenDecoder(const DecoderSpec& spec)
    : spec_(spec), steps_(spec.token_steps.size()), strips_(spec.strips.size()) {}

void TokenDecoder::push(std::string_view token, std::string& out) {
    run_steps(0, std::string(token), out);
}

void TokenDecoder::finish(std::string& out) {
    for (size_t i = 0; i < steps_.size(); ++i) flush_bytes(i, out);
    flush_byte_level(true, out);
    // What a strip still holds is what it cuts.
    steps_.assign(steps_.size(), {});
    strips_.assign(strips_.size(), {});
    first_token_ = true;
}

void TokenDecoder::run_steps(size_t first_step, std::string token, std::string& out) {
    for (size_t i = first_step; i < steps_.size(); ++i) {
        const TokenDecodeStep& step = spec_.token_steps[i];
        switch (step.kind) {
            case TokenDecodeStep::Kind::kReplace:
                token = replace_all(token, step.pattern, step.content);
                break;
            case TokenDecodeStep::Kind::kStrip:
                token = strip_token(token, step);
                break;
            case TokenDecodeStep::Kind::kMetaspace: {
                const bool drop = step.drop_in_first && steps_[i].first;
                steps_[i].first = false;
                token = replace_all(token, step.pattern, drop ? "" : " ");
                break;
            }
            case TokenDecodeStep::Kind::kByteFallback:
                return run_byte_fallback(i, std::move(token), out);
        }
    }
    join(token, out);
}

// Bytes wait until another token follows: one bad byte turns all of them into U+FFFD.
void TokenDecoder::run_byte_fallback(size_t step, std::string token, std::string& out) {
    if (const std::optional<char> byte = byte_of_token(token)) {
        steps_[step].bytes.push_back(*byte);
        return;
    }
    flush_bytes(step, out);
    run_steps(step + 1, std::move(token), out);
}

void TokenDecoder::flush_bytes(size_t step, std::string& out) {
    std::string bytes;
    bytes.swap(steps_[step].bytes);
    if (bytes.empty()) return;
    if (is_valid_utf8(bytes)) return run_steps(step + 1, std::move(bytes), out);
    std::string replacement;
    append_utf8(replacement, kReplacementCodePoint);
    for (size_t i = 0; i < bytes.size(); ++i) run_steps(step + 1, replacement, out);
}

void TokenDecoder::join(const std::string& token, std::string& out) {
    const bool first = first_token_;
    first_token_ = false;
    switch (spec_.join) {
        case DecoderSpec::Join::kByteLevel:
            return join_byte_level(token, out);
        case DecoderSpec::Join::kSpaces:
            return run_strips(0, first ? token : " " + token, out);
        case DecoderSpec::Join::kConcatenate:
            return run_strips(0, token, out);
    }
}

// A token with a character outside the byte alphabet (an added token) stands for its own UTF-8 bytes.
void TokenDecoder::join_byte_level(const std::string& token, std::string& out) {
    std::string bytes;
    for (size_t at = 0; at < token.size();) {
        const int byte = byte_level_byte(read_utf8(token, at));
        if (byte < 0) {
            bytes = token;
            break;
        }
        bytes.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
    }
    pending_ += bytes;
    flush_byte_level(false, out);
}

void TokenDecoder::flush_byte_level(bool at_end, std::string& out) {
    std::string text;
    size_t at = 0;
    while (at < pending_.size()) {
        const Utf8Unit unit = read_utf8_unit(pending_, at);
        if (unit.state == Utf8State::kTruncated && !at_end) break;
        append_utf8(text, unit.state == Utf8State::kComplete ? unit.code_point : kReplacementCodePoint);
        at += unit.length;
    }
    pending_.erase(0, at);
    run_strips(0, text, out);
}

// At most `stop` of the strip's characters are held back at the end of what was seen, until something else follows.
void TokenDecoder::run_strips(size_t first_strip, std::string_view text, std::string& out) {
    if (first_strip == strips_.size()) {
        out.append(text);
        return;
    }
    const TextStrip& strip = spec_.strips[first_strip];
    StripState& state = strips_[first_strip];
    std::string passed;
    for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        read_utf8(text, at);
        const std::string_view character = text.substr(begin, at - begin);
        const bool strippable = character == strip.content;
        if (!state.started && strippable && state.stripped < strip.start) {
            ++state.stripped;
            continue;
        }
        state.started = true;
        if (strippable && state.held < strip.stop) {
            ++state.held;
            continue;
        }
        if (!strippable)
            for (; state.held > 0; --state.held) passed += strip.content;
        passed += character;
    }
    run_strips(first_strip + 1, passed, out);
}

}  // namespace edgeprune
