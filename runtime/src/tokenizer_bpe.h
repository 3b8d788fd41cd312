// The BPE model of tokenizer.json: vocabulary, merges, and the merging of one word.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace edgeprune {

struct BpeOptions {
    std::string unk_token;  // "": none, unknown characters are left out
    bool fuse_unk = false;
    bool byte_fallback = false;
    bool ignore_merges = false;
    std::string end_of_word_suffix;  // ends a word's last character in the vocabulary; not with byte_fallback
};

class BpeModel {
public:
    using Vocabulary = std::vector<std::pair<std::string, int32_t>>;
    using Merges = std::vector<std::pair<std::string, std::string>>;

    // Throws Error(EP_ERROR_BUNDLE) for ids that repeat or lie outside [0, 2^24), and for merges of unknown tokens.
    BpeModel(const Vocabulary& vocabulary, const Merges& merges, BpeOptions options);

    // Appends the ids of one word (the whole text where there is no pre-tokenizer). Time n log n.
    void encode(std::string_view word, std::vector<int32_t>& ids) const;

    int32_t token_to_id(std::string_view token) const;  // -1 when absent
    const std::string* id_to_token(int32_t id) const;   // null when absent
    size_t size() const { return ids_.size(); }

private:
    struct Merge {
        uint32_t rank;
        int32_t new_id;
    };
    struct Symbol;
    struct Candidate;
    class Merger;

    void add_merges(const Merges& merges);
    const Merge* find_merge(int32_t left, int32_t right) const;
    std::vector<int32_t> initial_symbols(std::string_view word) const;
    bool append_bytes(std::string_view character, std::vector<int32_t>& symbols) const;
    int32_t unk_id() const;

    BpeOptions options_;
    std::vector<std::string> tokens_;  // owns the text that ids_ and by_id_ point to
    std::unordered_map<std::string_view, int32_t> ids_;
    std::vector<const std::string*> by_id_;
    std::unordered_map<uint64_t, Merge> merges_;  // (left id, right id) -> merge
    std::vector<int32_t> byte_ids_;               // of "<0x00>" ... "<0xFF>", -1 when absent
};

}  // namespace edgeprune
