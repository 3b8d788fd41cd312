#include "json_document.h"

#include <string>
#include <utility>
#include <vector>

namespace edgeprune {
namespace {

using Json = nlohmann::json;

// Empties arrays and objects from the inside: destroying an empty one allocates nothing.
void dismantle(Json& value) noexcept {
    if (value.is_array()) {
        auto& items = value.get_ref<Json::array_t&>();
        for (Json& item : items) dismantle(item);
        items.clear();
    } else if (value.is_object()) {
        auto& members = value.get_ref<Json::object_t&>();
        for (auto& [key, member] : members) dismantle(member);
        members.clear();
    }
}

// Puts the parser's events into a tree that somebody else owns, so that a failure half-way leaves it to its owner.
class Builder final : public nlohmann::json_sax<Json> {
public:
    explicit Builder(Json& root) : root_(root) {}

    const std::string& problem() const { return problem_; }

    bool null() override { return put(nullptr) != nullptr; }
    bool boolean(bool value) override { return put(value) != nullptr; }
    bool number_integer(number_integer_t value) override { return put(value) != nullptr; }
    bool number_unsigned(number_unsigned_t value) override { return put(value) != nullptr; }
    bool number_float(number_float_t value, const string_t&) override { return put(value) != nullptr; }
    bool string(string_t& value) override { return put(std::move(value)) != nullptr; }
    bool binary(binary_t&) override { return false; }  // no JSON text has any
    bool start_object(size_t) override { return open(Json::value_t::object); }
    bool start_array(size_t) override { return open(Json::value_t::array); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool key(string_t& name) override {
        slot_ = &open_.back()->get_ref<Json::object_t&>()[name];
        return true;
    }
    bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
        // The parser's own text quotes the file, which need not be UTF-8.
        problem_ = "it is not JSON from byte " + std::to_string(position) + " on";
        return false;
    }

private:
    // `value` is no container, or an empty one.
    Json* put(Json value) {
        if (open_.empty()) {
            root_ = std::move(value);
            return &root_;
        }
        if (open_.back()->is_array()) {
            auto& items = open_.back()->get_ref<Json::array_t&>();
            items.push_back(std::move(value));
            return &items.back();
        }
        dismantle(*slot_);  // the name may have occurred before
        *slot_ = std::move(value);
        return slot_;
    }
    bool open(Json::value_t kind) {
        if (open_.size() == kMaxJsonDepth) {
            problem_ = "it nests more than " + std::to_string(kMaxJsonDepth) + " levels deep";
            return false;
        }
        open_.push_back(put(Json(kind)));
        return true;
    }
    bool close() {
        open_.pop_back();
        return true;
    }

    Json& root_;
    std::vector<Json*> open_;  // arrays and objects that have begun, the innermost last; only it grows
    Json* slot_ = nullptr;     // of the member whose name came last
    std::string problem_;
};

}  // namespace

// With the object whole before anything can throw, the destructor runs also when the text is no document.
JsonDocument::JsonDocument(std::string_view text) : JsonDocument() {
    Builder builder(root_);
    if (!Json::sax_parse(text.begin(), text.end(), &builder)) throw JsonError(builder.problem());
}

JsonDocument::~JsonDocument() {
    dismantle(root_);
}

}  // namespace edgeprune
