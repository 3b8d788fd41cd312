// Reading parts of tokenizer.json strictly: an option nobody reads is refused, not ignored.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer_added.h"
#include "tokenizer_bpe.h"
#include "tokenizer_decode.h"
#include "tokenizer_normalize.h"
#include "tokenizer_pretokenize.h"

namespace edgeprune {

[[noreturn]] void refuse_tokenizer_part(const std::string& name);       // Error(EP_ERROR_UNSUPPORTED)
[[noreturn]] void malformed_tokenizer(const std::string& explanation);  // Error(EP_ERROR_BUNDLE)

// One JSON object with a "type", e.g. {"type": "Metaspace", ...} found under "pre_tokenizer".
class TokenizerPart {
public:
    TokenizerPart(const nlohmann::json& object, std::string section);

    const std::string& type() const { return type_; }
    const std::string& name() const { return name_; }  // "pre_tokenizer.Metaspace"
    [[noreturn]] void refuse(const std::string& detail = "") const;
    // Refuses every option that is not in `options` ("type" is always known).
    void only(std::initializer_list<const char*> options) const;

    bool has(const char* option) const;  // present and not null
    bool flag(const char* option, bool otherwise) const;
    size_t count(const char* option) const;
    std::string text(const char* option) const;
    std::string character(const char* option) const;  // exactly one character
    const nlohmann::json& value(const char* option) const;
    // Kind and text of {"String": text} or {"Regex": text}.
    std::pair<std::string, std::string> pattern() const;
    // The text of {"String": text}; every other kind of pattern is refused.
    std::string literal_pattern() const;

private:
    const nlohmann::json& object_;
    std::string type_;
    std::string name_;
};

// The parts of a section that is null, one part, or nested sequences of parts under `list_key`.
std::vector<TokenizerPart> flatten_parts(const nlohmann::json& section, const std::string& name, const char* list_key);

// Each reads one section of tokenizer.json.
Normalizer read_normalizer(const nlohmann::json& section);
PreTokenizer read_pre_tokenizer(const nlohmann::json& section);
DecoderSpec read_decoder(const nlohmann::json& section);

}  // namespace edgeprune
