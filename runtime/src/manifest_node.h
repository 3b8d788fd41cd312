// How the manifest is read: values that know where they stand, and what manifest.cpp and manifest_variant.cpp have of
// each other. Nobody else includes this.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "error.h"
#include "json_document.h"
#include "manifest.h"

namespace edgeprune::manifest_parts {

using Json = nlohmann::json;

[[noreturn]] inline void fail(const std::string& what) {
    throw Error(EP_ERROR_BUNDLE, "manifest.json: " + what);
}

// A value together with where it stands, so that every error can name its field.
class Node {
public:
    Node(const Json& value, std::string path) : value_(value), path_(std::move(path)) {}

    const Json& json() const { return value_; }
    const std::string& path() const { return path_; }
    bool has(const std::string& key) const { return value_.is_object() && value_.contains(key); }

    Node operator[](const std::string& key) const {
        const std::string path = path_.empty() ? key : path_ + "." + key;
        if (!value_.is_object()) fail(label() + " must be an object");
        const auto found = value_.find(key);
        if (found == value_.end()) fail(path + " is missing");
        return {*found, path};
    }
    std::vector<Node> items() const {
        if (!value_.is_array()) fail(label() + " must be a list");
        std::vector<Node> nodes;
        for (size_t i = 0; i < value_.size(); ++i) nodes.emplace_back(value_[i], path_ + "[" + std::to_string(i) + "]");
        return nodes;
    }
    std::map<std::string, Node> members() const {
        if (!value_.is_object()) fail(label() + " must be an object");
        std::map<std::string, Node> nodes;
        for (const auto& [key, value] : value_.items()) nodes.emplace(key, Node(value, path_ + "." + key));
        return nodes;
    }
    std::string text() const {
        if (!value_.is_string()) fail(label() + " must be a string");
        return value_.get<std::string>();
    }
    bool flag() const {
        if (!value_.is_boolean()) fail(label() + " must be true or false");
        return value_.get<bool>();
    }
    // A whole number from `least` to `most`.
    int64_t integer(int64_t least, int64_t most = std::numeric_limits<int64_t>::max()) const {
        const bool fits =
            value_.is_number_integer() && !(value_.is_number_unsigned() && value_.get<uint64_t>() > INT64_MAX);
        if (!fits || value_.get<int64_t>() < least || value_.get<int64_t>() > most) {
            fail(label() + " must be a whole number of at least " + std::to_string(least));
        }
        return value_.get<int64_t>();
    }
    int64_t count() const { return integer(1, int64_t{1} << 40); }
    // A keep ratio.
    double ratio() const {
        if (!value_.is_number() || !(value_.get<double>() > 0 && value_.get<double>() <= 1)) {
            fail(label() + " must be above 0 and at most 1");
        }
        return value_.get<double>();
    }

private:
    std::string label() const { return path_.empty() ? "the document" : path_; }

    const Json& value_;
    std::string path_;
};

// A path as it stands there, once it is known to be relative and to stay inside the bundle.
std::string safe_path(const std::string& path, const std::string& where);

// "graphs" of the manifest or of a variant, and "files".
void parse_graphs(const Node& node, Manifest& manifest);
void parse_files(const Node& node, Manifest& manifest);

// list: "variants". Puts the variant's graphs and files in the place of the canonical ones.
void use_variant(Manifest& manifest, const Node& list, const std::string& slug);

}  // namespace edgeprune::manifest_parts
