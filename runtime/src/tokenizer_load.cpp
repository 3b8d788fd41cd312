// tokenizer.json -> the parts of a tokenizer. edgeprune/tokenizer_parts.py lists the same parts for the export: change
// both together.
#include <algorithm>
#include <unordered_set>

#include "error.h"
#include "json_document.h"
#include "tokenizer_json.h"
#include "tokenizer_parts.h"

namespace edgeprune {

using nlohmann::json;

namespace {

const json& section_of(const json& root, const char* name) {
    static const json null;
    const auto found = root.find(name);
    return found == root.end() ? null : *found;
}

void check_top_level(const json& root) {
    static const char* const known[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                        "pre_tokenizer", "post_processor", "decoder", "model"};
    for (const auto& [key, value] : root.items()) {
        const std::string& name = key;
        if (std::none_of(std::begin(known), std::end(known), [&](const char* other) { return name == other; }))
            refuse_tokenizer_part(name);
    }
    const json& version = section_of(root, "version");
    if (!version.is_null() && !(version.is_string() && version.get_ref<const std::string&>() == "1.0"))
        refuse_tokenizer_part("version " + version.dump());
}

// An option that must be absent, null or `neutral`.
void refuse_unless_neutral(const TokenizerPart& model, const char* option, const json& neutral) {
    if (model.has(option) && model.value(option) != neutral) model.refuse(std::string("with ") + option);
}

BpeModel::Vocabulary read_vocabulary(const json& vocab) {
    if (!vocab.is_object()) malformed_tokenizer("model.vocab is not an object");
    BpeModel::Vocabulary vocabulary;
    vocabulary.reserve(vocab.size());
    for (const auto& [token, id] : vocab.items()) {
        if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX)
            malformed_tokenizer("the id of \"" + token + "\" is not a count");
        vocabulary.emplace_back(token, id.get<int32_t>());
    }
    return vocabulary;
}

// "a b", or ["a", "b"] which also serves tokens with spaces.
std::pair<std::string, std::string> read_merge(const json& merge) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
        return {merge[0].get<std::string>(), merge[1].get<std::string>()};
    if (!merge.is_string()) malformed_tokenizer("a merge is neither text nor a pair of texts");
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
        malformed_tokenizer("the merge \"" + text + "\" does not name two tokens");
    return {text.substr(0, space), text.substr(space + 1)};
}

BpeModel::Merges read_merges(const json& list) {
    if (!list.is_array()) malformed_tokenizer("model.merges is not a list");
    BpeModel::Merges merges;
    merges.reserve(list.size());
    for (const json& merge : list) {
        const bool version_line = merge.is_string() && merge.get_ref<const std::string&>().rfind("#version", 0) == 0;
        if (!version_line) merges.push_back(read_merge(merge));
    }
    return merges;
}

BpeModel read_model(const json& section) {
    if (section.is_null()) malformed_tokenizer("there is no model");
    const TokenizerPart model(section, "model");
    if (model.type() != "BPE") model.refuse();
    model.only({"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
                "ignore_merges", "vocab", "merges"});
    refuse_unless_neutral(model, "dropout", 0);
    refuse_unless_neutral(model, "continuing_subword_prefix", "");
    BpeOptions options;
    options.unk_token = model.has("unk_token") ? model.text("unk_token") : "";
    options.fuse_unk = model.flag("fuse_unk", false);
    options.byte_fallback = model.flag("byte_fallback", false);
    options.ignore_merges = model.flag("ignore_merges", false);
    options.end_of_word_suffix = model.has("end_of_word_suffix") ? model.text("end_of_word_suffix") : "";
    if (options.byte_fallback && !options.end_of_word_suffix.empty())
        model.refuse("with end_of_word_suffix and byte_fallback");
    return BpeModel(read_vocabulary(model.value("vocab")), read_merges(model.value("merges")), options);
}

AddedToken read_added_token(const json& object) {
    if (!object.is_object()) malformed_tokenizer("an added token is not an object");
    static const char* const known[] = {"id", "content", "special", "normalized", "lstrip", "rstrip", "single_word"};
    for (const auto& [key, value] : object.items()) {
        const std::string& name = key;
        if (std::none_of(std::begin(known), std::end(known), [&](const char* other) { return name == other; }))
            refuse_tokenizer_part("added_tokens with option \"" + name + "\"");
    }
    AddedToken token;
    const json& id = object.at("id");
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX)
        malformed_tokenizer("the id of an added token is not a count");
    token.id = id.get<int32_t>();
    token.content = object.at("content").get<std::string>();
    token.special = object.at("special").get<bool>();
    token.normalized = object.at("normalized").get<bool>();
    token.lstrip = object.at("lstrip").get<bool>();
    token.rstrip = object.at("rstrip").get<bool>();
    token.single_word = object.at("single_word").get<bool>();
    return token;
}

// Hugging Face tokenizers ignores the ids in the file: a token of the vocabulary has its id there, the others are
// numbered in their order behind it. A file that says something else would mean two things.
std::vector<AddedToken> read_added_tokens(const json& list, const BpeModel& model) {
    std::vector<AddedToken> tokens;
    if (list.is_null()) return tokens;
    if (!list.is_array()) malformed_tokenizer("added_tokens is not a list");
    int32_t next_id = static_cast<int32_t>(model.size());
    std::unordered_set<std::string> seen;
    for (const json& object : list) {
        AddedToken token = read_added_token(object);
        if (token.content.empty() || !seen.insert(token.content).second)
            refuse_tokenizer_part("added_tokens with the empty or repeated token \"" + token.content + "\"");
        const int32_t known_id = model.token_to_id(token.content);
        const int32_t expected = known_id >= 0 ? known_id : next_id++;
        if (token.id != expected)
            refuse_tokenizer_part("added_tokens with the id " + std::to_string(token.id) + " for \"" + token.content +
                                  "\", whose place gives " + std::to_string(expected) + ",");
        tokens.push_back(std::move(token));
    }
    return tokens;
}

std::unique_ptr<TokenizerParts> read_parts(const json& root) {
    if (!root.is_object()) malformed_tokenizer("it is not an object");
    check_top_level(root);
    Normalizer normalizer = read_normalizer(section_of(root, "normalizer"));
    PreTokenizer pre_tokenizer = read_pre_tokenizer(section_of(root, "pre_tokenizer"));
    DecoderSpec decoder = read_decoder(section_of(root, "decoder"));
    BpeModel model = read_model(section_of(root, "model"));
    AddedTokens added(read_added_tokens(section_of(root, "added_tokens"), model), normalizer);
    return std::unique_ptr<TokenizerParts>(new TokenizerParts{std::move(normalizer), std::move(pre_tokenizer),
                                                              std::move(model), std::move(added), std::move(decoder)});
}

}  // namespace

std::unique_ptr<TokenizerParts> load_tokenizer(std::string_view json_text) {
    try {
        const JsonDocument document(json_text);
        return read_parts(document.root());
    } catch (const JsonError& failure) {
        malformed_tokenizer(failure.what());
    } catch (const json::exception& failure) {
        malformed_tokenizer(failure.what());
    }
}

}  // namespace edgeprune
