// Input: one byte of options, then a question. Two tokenizers that know every byte: what goes in comes out, and a plain
// question makes no special token.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "error.h"
#include "fuzz_target.h"
#include "prompt.h"
#include "tokenizer_pretokenize.h"

namespace {

using edgeprune::Tokenizer;
using nlohmann::json;

constexpr int32_t kBytes = 256;
constexpr const char* kMarker = "<image>";

json added(int32_t id, const char* content, bool strips) {
    return {{"id", id},         {"content", content}, {"special", true},      {"normalized", false},
            {"lstrip", strips}, {"rstrip", strips},   {"single_word", strips}};
}

json part(const char* type) {
    return {{"type", type}};
}

json with_model(const json& vocabulary, const json& merges) {
    const auto next = static_cast<int32_t>(vocabulary.size());
    json root = {{"version", "1.0"}, {"added_tokens", {added(next, kMarker, false), added(next + 1, "<s>", false)}}};
    root["model"] = {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}, {"byte_fallback", true}};
    return root;
}

std::unique_ptr<Tokenizer> byte_level() {
    json vocabulary = json::object();
    for (int32_t byte = 0; byte < kBytes; ++byte)
        vocabulary[edgeprune::byte_level_character(static_cast<unsigned char>(byte))] = byte;
    for (const char* token : {"\u0120t", "he", "\u0120the", "\u010a\u010a"}) vocabulary[token] = vocabulary.size();
    json root = with_model(vocabulary, {"\u0120 t", "h e", "\u0120t he", "\u010a \u010a"});
    root["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    root["decoder"] = part("ByteLevel");
    return Tokenizer::from_json(root.dump());
}

std::unique_ptr<Tokenizer> byte_fallback() {
    json vocabulary = json::object();
    for (int32_t byte = 0; byte < kBytes; ++byte) {
        char token[8];
        std::snprintf(token, sizeof token, "<0x%02X>", static_cast<unsigned>(byte));
        vocabulary[token] = byte;
    }
    for (const char* token : {"t", "h", "e", "\u2581", "he", "\u2581t", "\u2581the", "\u2581\u2581"})
        vocabulary[token] = vocabulary.size();
    json root = with_model(vocabulary, {"h e", "\u2581 t", "\u2581t he", "\u2581 \u2581"});
    root["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
    const json back = {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
    root["decoder"] = {{"type", "Sequence"}, {"decoders", {back, part("ByteFallback"), part("Fuse")}}};
    return Tokenizer::from_json(root.dump());
}

// Well-formed text with `mark` in place of U+2581.
std::string repaired(std::string_view bytes, const char* mark) {
    std::string text;
    for (size_t at = 0; at < bytes.size();) {
        const edgeprune::Utf8Unit unit = edgeprune::read_utf8_unit(bytes, at);
        const bool complete = unit.state == edgeprune::Utf8State::kComplete;
        if (complete && unit.code_point == 0x2581)
            text += mark;
        else
            edgeprune::append_utf8(text, complete ? unit.code_point : edgeprune::kReplacementCodePoint);
        at += unit.length;
    }
    return text;
}

edgeprune::Manifest manifest_of(const Tokenizer& tokenizer) {
    edgeprune::Manifest manifest;
    manifest.tokens.image_marker = kMarker;
    manifest.tokens.image = tokenizer.token_to_id(kMarker);
    manifest.tokens.prefix = {tokenizer.token_to_id("<s>")};
    using Kind = edgeprune::PromptSegment::Kind;
    manifest.prompt = {{Kind::text, "<s>U: ", "", ""},
                       {Kind::images, "", " ", "\n"},
                       {Kind::question, "", "", ""},
                       {Kind::text, " A:<s>", "", ""}};
    return manifest;
}

// A plain question: three special tokens of the template, three visual tokens of the picture, and all its text.
void check_prompt(const Tokenizer& tokenizer, const std::string& question) {
    const edgeprune::Manifest manifest = manifest_of(tokenizer);
    const edgeprune::PromptText prompt = edgeprune::render_prompt(manifest, question, 1, false);
    std::vector<int32_t> ids;
    int64_t visual = 0;
    for (const edgeprune::Item& item : edgeprune::prompt_items(manifest, tokenizer, prompt, {{7, 3}})) {
        if (item.visual())
            ++visual;
        else
            ids.push_back(item.token);
    }
    require(visual == 3, "a plain question adds no picture");
    require(std::count(ids.begin(), ids.end(), tokenizer.token_to_id("<s>")) == 3, "a plain question is only text");
    check_streaming(tokenizer, ids);
}

// With special tokens allowed, markers in the question ask for pictures that are not there.
void check_special_prompt(const Tokenizer& tokenizer, const std::string& question) {
    const edgeprune::Manifest manifest = manifest_of(tokenizer);
    try {
        edgeprune::prompt_items(manifest, tokenizer, edgeprune::render_prompt(manifest, question, 1, true), {{0, 2}});
    } catch (const edgeprune::Error& error) {
        require(error.status() == EP_ERROR_INVALID_ARGUMENT, "too many markers are an invalid argument");
        require(question.find(kMarker) != std::string::npos, "a question without a marker is answered");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const std::unique_ptr<Tokenizer> tokenizers[] = {byte_level(), byte_fallback()};
    if (size == 0) return 0;
    const Tokenizer& tokenizer = *tokenizers[data[0] % 2];
    const std::string question(reinterpret_cast<const char*>(data) + 1, size - 1);

    const std::vector<int32_t> ids = tokenizer.encode(question);
    const char* mark = data[0] % 2 == 0 ? "\u2581" : " ";  // the second tokenizer writes spaces as U+2581
    require(tokenizer.decode(ids, false) == repaired(question, mark), "what is encoded comes back");
    check_streaming(tokenizer, ids);
    if (data[0] & 2)
        check_special_prompt(tokenizer, question);
    else
        check_prompt(tokenizer, question);
    return 0;
}
