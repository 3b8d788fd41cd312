// Decoders of tokenizer.json, one token at a time: what comes out is final, so that decoding a list of ids and
// streaming them are the same code.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace edgeprune {

// A step that sees single tokens.
struct TokenDecodeStep {
    enum class Kind { kReplace, kByteFallback, kMetaspace, kStrip };
    Kind kind;
    std::string pattern;         // of kReplace and kMetaspace (the replacement), never empty
    std::string content;         // of kReplace; of kStrip: one character
    bool drop_in_first = false;  // kMetaspace: the first token loses its replacements instead of getting spaces
    size_t start = 0, stop = 0;  // kStrip: at most so many characters
};

// Strip on the joined text.
struct TextStrip {
    std::string content;
    size_t start, stop;
};

// token steps, then the tokens become one text, then strips.
struct DecoderSpec {
    enum class Join { kSpaces, kConcatenate, kByteLevel };  // kSpaces: tokenizer.json without a decoder
    std::vector<TokenDecodeStep> token_steps;
    Join join = Join::kSpaces;
    std::vector<TextStrip> strips;
};

class TokenDecoder {
public:
    explicit TokenDecoder(const DecoderSpec& spec);  // `spec` must outlive it

    void push(std::string_view token, std::string& out);  // appends what became final
    void finish(std::string& out);                        // appends the rest and starts anew

private:
    struct StepState {
        bool first = true;  // kMetaspace
        std::string bytes;  // kByteFallback: byte tokens in a row
    };
    struct StripState {
        size_t stripped = 0;  // characters cut at the start
        bool started = false;
        size_t held = 0;  // characters at the end that finish() may cut
    };

    void run_steps(size_t first_step, std::string token, std::string& out);
    void run_byte_fallback(size_t step, std::string token, std::string& out);
    void flush_bytes(size_t step, std::string& out);
    void join(const std::string& token, std::string& out);
    void join_byte_level(const std::string& token, std::string& out);
    void flush_byte_level(bool at_end, std::string& out);
    void run_strips(size_t first_strip, std::string_view text, std::string& out);

    const DecoderSpec& spec_;
    std::vector<StepState> steps_;
    std::vector<StripState> strips_;
    bool first_token_ = true;
    std::string pending_;  // kByteLevel: bytes of an unfinished character
};

}  // namespace edgeprune
