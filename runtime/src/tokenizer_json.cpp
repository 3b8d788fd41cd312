#include "tokenizer_json.h"

#include <algorithm>

#include "error.h"
#include "utf8.h"

namespace edgeprune {

using nlohmann::json;

void refuse_tokenizer_part(const std::string& name) {
    throw Error(EP_ERROR_UNSUPPORTED, "tokenizer part " + name + " is not supported by libedgeprune");
}

void malformed_tokenizer(const std::string& explanation) {
    throw Error(EP_ERROR_BUNDLE, "tokenizer.json is malformed: " + explanation);
}

TokenizerPart::TokenizerPart(const json& object, std::string section) : object_(object), name_(std::move(section)) {
    if (!object.is_object()) malformed_tokenizer(name_ + " is not an object");
    const auto type = object.find("type");
    if (type == object.end() || !type->is_string()) refuse_tokenizer_part(name_ + " without a type");
    type_ = type->get<std::string>();
    name_ += "." + type_;
}

void TokenizerPart::refuse(const std::string& detail) const {
    refuse_tokenizer_part(detail.empty() ? name_ : name_ + " " + detail);
}

void TokenizerPart::only(std::initializer_list<const char*> options) const {
    for (const auto& [key, value] : object_.items()) {
        const std::string& option = key;
        const bool known = option == "type" || std::any_of(options.begin(), options.end(),
                                                           [&](const char* other) { return option == other; });
        if (!known) refuse("with option \"" + option + "\"");
    }
}

bool TokenizerPart::has(const char* option) const {
    const auto found = object_.find(option);
    return found != object_.end() && !found->is_null();
}

bool TokenizerPart::flag(const char* option, bool otherwise) const {
    if (!has(option)) return otherwise;
    if (!value(option).is_boolean()) malformed_tokenizer(name_ + " needs true or false as \"" + option + "\"");
    return value(option).get<bool>();
}

size_t TokenizerPart::count(const char* option) const {
    if (!value(option).is_number_unsigned()) malformed_tokenizer(name_ + " needs a count as \"" + option + "\"");
    return value(option).get<size_t>();
}

std::string TokenizerPart::text(const char* option) const {
    if (!value(option).is_string()) malformed_tokenizer(name_ + " needs text as \"" + option + "\"");
    return value(option).get<std::string>();
}

std::string TokenizerPart::character(const char* option) const {
    std::string text_value = text(option);
    if (text_value.empty() || utf8_length(static_cast<unsigned char>(text_value[0])) != text_value.size())
        malformed_tokenizer(name_ + " needs one character as \"" + option + "\"");
    return text_value;
}

const json& TokenizerPart::value(const char* option) const {
    if (!has(option)) malformed_tokenizer(name_ + " has no \"" + option + "\"");
    return object_.at(option);
}

std::pair<std::string, std::string> TokenizerPart::pattern() const {
    const json& object = value("pattern");
    if (!object.is_object() || object.size() != 1 || !object.begin().value().is_string())
        malformed_tokenizer(name_ + " needs a pattern of one String or Regex");
    return {object.begin().key(), object.begin().value().get<std::string>()};
}

std::string TokenizerPart::literal_pattern() const {
    auto [kind, text_value] = pattern();
    if (kind != "String") refuse("with pattern \"" + text_value + "\"");
    if (text_value.empty()) refuse("with an empty pattern");
    return text_value;
}

std::vector<TokenizerPart> flatten_parts(const json& section, const std::string& name, const char* list_key) {
    if (section.is_null()) return {};
    TokenizerPart part(section, name);
    if (part.type() != "Sequence") return {part};
    part.only({list_key});
    if (!part.value(list_key).is_array()) malformed_tokenizer(part.name() + " needs a list as \"" + list_key + "\"");
    std::vector<TokenizerPart> parts;
    for (const json& item : part.value(list_key))
        for (TokenizerPart& inner : flatten_parts(item, name, list_key)) parts.push_back(std::move(inner));
    return parts;
}

}  // namespace edgeprune
