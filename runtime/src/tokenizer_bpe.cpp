#include "tokenizer_bpe.h"

#include <algorithm>
#include <cstdio>
#include <queue>

#include "error.h"
#include "utf8.h"

namespace edgeprune {
namespace {

constexpr int32_t kLargestId = (1 << 24) - 1;

uint64_t pair_key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

std::string byte_token(unsigned byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    return text;
}

}  // namespace

BpeModel::BpeModel(const Vocabulary& vocabulary, const Merges& merges, BpeOptions options)
    : options_(std::move(options)) {
    tokens_.reserve(vocabulary.size());
    ids_.reserve(vocabulary.size());
    for (const auto& [token, id] : vocabulary) {
        if (id < 0 || id > kLargestId)
            throw Error(EP_ERROR_BUNDLE,
                        "tokenizer.json gives the token \"" + token + "\" an id outside 0 to 16777215");
        tokens_.push_back(token);
        ids_.emplace(tokens_.back(), id);
        if (by_id_.size() <= static_cast<size_t>(id)) by_id_.resize(static_cast<size_t>(id) + 1, nullptr);
        if (by_id_[static_cast<size_t>(id)] != nullptr)
            throw Error(EP_ERROR_BUNDLE, "tokenizer.json gives two tokens the id " + std::to_string(id));
        by_id_[static_cast<size_t>(id)] = &tokens_.back();
    }
    add_merges(merges);
    for (unsigned byte = 0; byte < 256; ++byte) byte_ids_.push_back(token_to_id(byte_token(byte)));
}

void BpeModel::add_merges(const Merges& merges) {
    merges_.reserve(merges.size());
    for (size_t rank = 0; rank < merges.size(); ++rank) {
        const auto& [left, right] = merges[rank];
        const int32_t left_id = token_to_id(left);
        const int32_t right_id = token_to_id(right);
        const int32_t new_id = token_to_id(left + right);
        if (left_id < 0 || right_id < 0 || new_id < 0)
            throw Error(EP_ERROR_BUNDLE, "tokenizer.json merges \"" + left + "\" and \"" + right +
                                             "\", which are not in its vocabulary");
        merges_[pair_key(left_id, right_id)] = {static_cast<uint32_t>(rank), new_id};
    }
}

int32_t BpeModel::token_to_id(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
}

const std::string* BpeModel::id_to_token(int32_t id) const {
    return id < 0 || static_cast<size_t>(id) >= by_id_.size() ? nullptr : by_id_[static_cast<size_t>(id)];
}

const BpeModel::Merge* BpeModel::find_merge(int32_t left, int32_t right) const {
    const auto found = merges_.find(pair_key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
}

int32_t BpeModel::unk_id() const {
    const int32_t id = token_to_id(options_.unk_token);
    if (id < 0)
        throw Error(EP_ERROR_BUNDLE,
                    "tokenizer.json names \"" + options_.unk_token + "\" as unk_token, which is not in its vocabulary");
    return id;
}

bool BpeModel::append_bytes(std::string_view character, std::vector<int32_t>& symbols) const {
    const auto id_of = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
    if (!std::all_of(character.begin(), character.end(), [&](char byte) { return id_of(byte) >= 0; })) return false;
    for (const char byte : character) symbols.push_back(id_of(byte));
    return true;
}

// One symbol per character; a run of unknown characters waits until a known one follows. Byte tokens do not end such a
// run, as in Hugging Face tokenizers.
std::vector<int32_t> BpeModel::initial_symbols(std::string_view word) const {
    std::vector<int32_t> symbols;
    symbols.reserve(word.size());
    int32_t waiting_unk = -1;
    const auto flush = [&] {
        if (waiting_unk >= 0) symbols.push_back(waiting_unk);
        waiting_unk = -1;
    };
    for (size_t at = 0; at < word.size();) {
        const size_t length = utf8_length(static_cast<unsigned char>(word[at]));
        const std::string_view character = word.substr(at, length);
        at += length;
        const bool last = at >= word.size() && !options_.end_of_word_suffix.empty();
        const int32_t id =
            last ? token_to_id(std::string(character) + options_.end_of_word_suffix) : token_to_id(character);
        if (id >= 0) {
            flush();
            symbols.push_back(id);
        } else if (options_.byte_fallback && append_bytes(character, symbols)) {
            continue;
        } else if (!options_.unk_token.empty()) {
            if (!options_.fuse_unk) flush();
            waiting_unk = unk_id();
        }
    }
    flush();
    return symbols;
}

struct BpeModel::Symbol {
    int32_t id;
    ptrdiff_t previous, next;  // -1: none
    bool removed;
};

struct BpeModel::Candidate {
    uint32_t rank;
    size_t position;  // of the left symbol
    int32_t new_id;

    // std::priority_queue gives the largest: the lowest rank, then the leftmost.
    bool operator<(const Candidate& other) const {
        return rank != other.rank ? rank > other.rank : position > other.position;
    }
};

// A linked list of symbols and a heap of merges that were possible when they were pushed.
class BpeModel::Merger {
public:
    Merger(const BpeModel& model, const std::vector<int32_t>& ids) : model_(model) {
        const auto count = static_cast<ptrdiff_t>(ids.size());
        symbols_.reserve(ids.size());
        for (ptrdiff_t i = 0; i < count; ++i)
            symbols_.push_back({ids[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1, false});
        for (ptrdiff_t i = 0; i + 1 < count; ++i) push(i);
    }

    void run() {
        while (!heap_.empty()) {
            const Candidate best = heap_.top();
            heap_.pop();
            if (still_possible(best)) merge(best);
        }
    }

    void append_to(std::vector<int32_t>& ids) const {
        for (const Symbol& symbol : symbols_)
            if (!symbol.removed) ids.push_back(symbol.id);
    }

private:
    Symbol& at(ptrdiff_t i) { return symbols_[static_cast<size_t>(i)]; }

    // Offers the merge of the symbol at `left` with the one after it.
    void push(ptrdiff_t left) {
        const Symbol& symbol = at(left);
        if (const Merge* merge = model_.find_merge(symbol.id, at(symbol.next).id))
            heap_.push({merge->rank, static_cast<size_t>(left), merge->new_id});
    }

    bool still_possible(const Candidate& candidate) {
        const Symbol& left = symbols_[candidate.position];
        if (left.removed || left.next < 0) return false;
        const Merge* merge = model_.find_merge(left.id, at(left.next).id);
        return merge != nullptr && merge->new_id == candidate.new_id;
    }

    void merge(const Candidate& candidate) {
        const auto position = static_cast<ptrdiff_t>(candidate.position);
        Symbol& left = at(position);
        Symbol& right = at(left.next);
        left.id = candidate.new_id;
        left.next = right.next;
        right.removed = true;
        if (left.next >= 0) at(left.next).previous = position;
        if (left.previous >= 0) push(left.previous);
        if (left.next >= 0) push(position);
    }

    const BpeModel& model_;
    std::vector<Symbol> symbols_;
    std::priority_queue<Candidate> heap_;
};

void BpeModel::encode(std::string_view word, std::vector<int32_t>& ids) const {
    if (options_.ignore_merges) {
        if (const int32_t id = token_to_id(word); id >= 0) {
            ids.push_back(id);
            return;
        }
    }
    Merger merger(*this, initial_symbols(word));
    merger.run();
    merger.append_to(ids);
}

}  // namespace edgeprune
