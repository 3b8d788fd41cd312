#include "tokenizer_added.h"

#include <algorithm>

#include "unicode.h"
#include "utf8.h"

namespace edgeprune {
namespace {

// Start of the character before `at`.
size_t previous_character(std::string_view text, size_t at) {
    do --at;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
    return at;
}

bool word_before(std::string_view text, size_t at) {
    if (at == 0) return false;
    size_t start = previous_character(text, at);
    return is_word_character(read_utf8(text, start));
}

bool word_after(std::string_view text, size_t at) {
    return at < text.size() && is_word_character(read_utf8(text, at));
}

// Stops at `least`, a border of characters.
size_t skip_space_back(std::string_view text, size_t at, size_t least) {
    while (at > least) {
        const size_t start = previous_character(text, at);
        size_t cursor = start;
        if (!is_stripped_space(read_utf8(text, cursor))) break;
        at = start;
    }
    return at;
}

size_t skip_space_forward(std::string_view text, size_t at) {
    while (at < text.size()) {
        size_t cursor = at;
        if (!is_stripped_space(read_utf8(text, cursor))) break;
        at = cursor;
    }
    return at;
}

}  // namespace

void AddedTokens::Trie::insert(std::string_view pattern, size_t token) {
    size_t node = 0;
    for (const char byte : pattern) {
        const auto [entry, is_new] = nodes_[node].children.emplace(byte, nodes_.size());
        node = entry->second;
        if (is_new) nodes_.emplace_back();
    }
    nodes_[node].token = token;
}

AddedTokens::Trie::Match AddedTokens::Trie::longest(std::string_view text, size_t at,
                                                    const std::vector<bool>& plain) const {
    Match best{0, 0};
    size_t node = 0;
    for (size_t i = at; i < text.size(); ++i) {
        const auto child = nodes_[node].children.find(text[i]);
        if (child == nodes_[node].children.end() || (!plain.empty() && plain[i])) break;
        node = child->second;
        if (nodes_[node].token != kNoToken) best = {i + 1 - at, nodes_[node].token};
    }
    return best;
}

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens, const Normalizer& normalizer) : tokens_(tokens) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
        const AddedToken& token = tokens_[i];
        const std::string text = token.normalized ? normalizer.apply(token.content) : token.content;
        (token.normalized ? normalized_ : raw_).insert(text, i);
        text_[token.id] = text;
        if (token.special) special_.insert(token.content);
    }
}

std::vector<AddedSegment> AddedTokens::split(const Trie& trie, std::string_view text,
                                             const std::vector<bool>& plain) const {
    if (trie.empty()) return {{0, text.size(), -1}};
    std::vector<AddedSegment> segments;
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
        const Trie::Match match = trie.longest(text, at, plain);
        const size_t match_end = at + std::max<size_t>(match.length, 1);
        const AddedToken* token = match.length == 0 ? nullptr : &tokens_[match.token];
        if (token && !(token->single_word && (word_before(text, at) || word_after(text, match_end)))) {
            const size_t begin = token->lstrip ? skip_space_back(text, at, done) : at;
            const size_t end = token->rstrip ? skip_space_forward(text, match_end) : match_end;
            if (done < begin) segments.push_back({done, begin, -1});
            segments.push_back({begin, end, token->id});
            done = end;
        }
        at = match_end;
    }
    if (done < text.size()) segments.push_back({done, text.size(), -1});
    return segments;
}

std::vector<AddedSegment> AddedTokens::split_raw(std::string_view text, const std::vector<bool>& plain) const {
    return split(raw_, text, plain);
}

std::vector<AddedSegment> AddedTokens::split_normalized(std::string_view text, const std::vector<bool>& plain) const {
    return split(normalized_, text, plain);
}

const std::string* AddedTokens::id_to_text(int32_t id) const {
    const auto found = text_.find(id);
    return found == text_.end() ? nullptr : &found->second;
}

int32_t AddedTokens::token_to_id(std::string_view content) const {
    const auto found =
        std::find_if(tokens_.begin(), tokens_.end(), [&](const AddedToken& token) { return token.content == content; });
    return found == tokens_.end() ? -1 : found->id;
}

}  // namespace edgeprune
