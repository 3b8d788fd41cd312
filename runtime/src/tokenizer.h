// Text <-> token ids, equal to Hugging Face `tokenizers` for the parts of tokenizer.json listed in tokenizer_load.cpp.
// Everything else is refused by name when the file is read, never approximated.
//
// The post_processor and the truncation and padding of tokenizer.json are not applied: a bundle's manifest states the
// ids that stand before and after a prompt.
// Text is UTF-8. Malformed sequences count as U+FFFD, one per maximal ill-formed part, as Python's
// bytes.decode("utf-8", errors="replace") does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace edgeprune {

// Byte offsets into the text that is encoded, end excluded.
struct TextSpan {
    size_t begin, end;
};

class DecodeStream;
struct TokenizerParts;

// Immutable after from_json; every method may be called from several threads at once.
class Tokenizer {
public:
    // Reads the text of a tokenizer.json.
    // Throws Error(EP_ERROR_UNSUPPORTED) that names a part this library does not know, Error(EP_ERROR_BUNDLE) when the
    // text is not JSON or contradicts itself.
    static std::unique_ptr<Tokenizer> from_json(std::string_view json_text);
    ~Tokenizer();
    Tokenizer(const Tokenizer&) = delete;
    Tokenizer& operator=(const Tokenizer&) = delete;

    // Ids of `utf8`. Inside the spans of `plain` (any order) no added token matches, special or not: a match that
    // overlaps a span by one byte or more is rejected and its text is encoded as ordinary text. White space of a span
    // beside a token outside it still goes to that token where the token says so (lstrip, rstrip).
    std::vector<int32_t> encode(std::string_view utf8, const std::vector<TextSpan>& plain = {}) const;
    // Text of `ids`; ids outside the vocabulary are left out, and so are special tokens when skip_special is true.
    // Equal to HF's decode with clean_up_tokenization_spaces=False.
    std::string decode(const std::vector<int32_t>& ids, bool skip_special) const;
    // Number of tokens, added tokens included.
    size_t vocab_size() const;
    // Id of a token as it is written in the vocabulary; -1 when absent.
    int32_t token_to_id(std::string_view token) const;

private:
    friend class StreamDecoder;
    explicit Tokenizer(std::unique_ptr<TokenizerParts> parts);
    std::unique_ptr<TokenizerParts> parts_;
};

// Decodes one id at a time and gives text out as soon as it is final: never half a character, and the pieces joined
// equal decode(all ids, skip_special=true). The tokenizer must outlive it.
class StreamDecoder {
public:
    explicit StreamDecoder(const Tokenizer& tokenizer);
    ~StreamDecoder();
    StreamDecoder(StreamDecoder&&) noexcept;
    StreamDecoder& operator=(StreamDecoder&&) noexcept;

    std::string push(int32_t id);  // text that became final, often ""
    std::string finish();          // what is left; afterwards the decoder is as new

private:
    std::unique_ptr<DecodeStream> stream_;
};

}  // namespace edgeprune
