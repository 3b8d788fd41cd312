// Added tokens (special or not): found in the text before the model sees it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tokenizer_normalize.h"

namespace edgeprune {

struct AddedToken {
    std::string content;
    int32_t id = -1;
    bool special = false;
    bool normalized = false;   // matches in the normalized text, as the normalizer writes it
    bool lstrip = false;       // swallows white space on its left
    bool rstrip = false;       // ... on its right
    bool single_word = false;  // matches only where no word character touches it
};

// A stretch of text: an added token, or (id -1) text for the model.
struct AddedSegment {
    size_t begin, end;
    int32_t id;
};

class AddedTokens {
public:
    AddedTokens() = default;
    AddedTokens(const std::vector<AddedToken>& tokens, const Normalizer& normalizer);

    // Splits text before (raw) or after (normalized) the normalizers. No match touches a byte marked in `plain`, which
    // is as long as the text or empty.
    std::vector<AddedSegment> split_raw(std::string_view text, const std::vector<bool>& plain) const;
    std::vector<AddedSegment> split_normalized(std::string_view text, const std::vector<bool>& plain) const;

    const std::string* id_to_text(int32_t id) const;      // what the decoder gets; null when `id` is no added token
    int32_t token_to_id(std::string_view content) const;  // -1 when absent
    bool is_special(const std::string& text) const { return special_.count(text) != 0; }
    const std::vector<AddedToken>& tokens() const { return tokens_; }

private:
    // Patterns as a tree of bytes; the longest match wins.
    class Trie {
    public:
        void insert(std::string_view pattern, size_t token);
        bool empty() const { return nodes_.size() == 1; }
        struct Match {
            size_t length, token;
        };
        Match longest(std::string_view text, size_t at, const std::vector<bool>& plain) const;  // length 0: none

    private:
        static constexpr size_t kNoToken = static_cast<size_t>(-1);
        struct Node {
            std::map<char, size_t> children;
            size_t token = kNoToken;
        };
        std::vector<Node> nodes_ = std::vector<Node>(1);
    };

    std::vector<AddedSegment> split(const Trie& trie, std::string_view text, const std::vector<bool>& plain) const;

    std::vector<AddedToken> tokens_;
    std::unordered_map<int32_t, std::string> text_;
    std::unordered_set<std::string> special_;
    Trie raw_;
    Trie normalized_;
};

}  // namespace edgeprune
