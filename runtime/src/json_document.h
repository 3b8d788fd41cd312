// A JSON text as a tree of nlohmann::json whose end needs no memory. The library's own destructor allocates for every
// array and object that is not empty; where memory is short that ends the process instead of giving a status.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

namespace edgeprune {

// The JSON library walks its values by recursion, and so do we: a file of a hundred thousand brackets must not exhaust
// the stack of a robot's process. Files of a bundle nest less than 15 levels.
constexpr size_t kMaxJsonDepth = 64;

// Why a text is no document: "it is not JSON from byte 7 on" or "it nests more than 64 levels deep".
class JsonError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

class JsonDocument {
public:
    // Throws JsonError. Of members of the same name the last counts.
    explicit JsonDocument(std::string_view text);
    ~JsonDocument();
    JsonDocument(const JsonDocument&) = delete;
    JsonDocument& operator=(const JsonDocument&) = delete;

    // To be read where it stands: a copy of an array or object has the destructor that allocates.
    const nlohmann::json& root() const { return root_; }

private:
    JsonDocument() = default;

    nlohmann::json root_;
};

}  // namespace edgeprune
