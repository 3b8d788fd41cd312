// Writing JSON as text, without a tree; see json_document.h.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace edgeprune {

// A string, number, truth value or null. What is not UTF-8 in a string is replaced.
inline std::string json_scalar(const nlohmann::json& value) {
    return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// A list of scalars.
template <class Items>
std::string json_list(const Items& items) {
    std::string text;
    for (const auto& item : items) text += (text.empty() ? "" : ",") + json_scalar(item);
    return "[" + text + "]";
}

// An object, member by member.
class JsonObject {
public:
    JsonObject& add(const char* key, const nlohmann::json& scalar) { return add_json(key, json_scalar(scalar)); }
    JsonObject& add_json(const char* key, const std::string& json) {
        members_ += (members_.empty() ? "" : ",") + json_scalar(key) + ":" + json;
        return *this;
    }
    std::string text() const { return "{" + members_ + "}"; }

private:
    std::string members_;
};

}  // namespace edgeprune
