// Keys and values of the sequence so far, and which sequence that is. A growing cache is replaced by every run; a fixed
// one has room for more tokens, which runs write where they belong. What lies behind its last token is zero or finite,
// because a masked place still takes part in a product.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend.h"
#include "bound_graph.h"
#include "prompt.h"

namespace edgeprune {

class KvCache {
public:
    KvCache(const Backend& backend, const KvSpec& spec);

    // Tokens for which a fixed cache of so many has room.
    static constexpr int64_t capacity_for(int64_t tokens) { return (tokens + kStep - 1) / kStep * kStep; }

    // Tokens in the cache.
    int64_t length() const { return static_cast<int64_t>(items_.size()); }
    // That it holds in memory.
    size_t bytes() const;
    // The sequence that the cache holds; as long as length().
    const std::vector<Item>& items() const { return items_; }
    // How many items at the beginning of `sequence` the cache holds already.
    int64_t common_prefix(const std::vector<Item>& sequence) const;
    // Keeps the first `length` tokens, in the same memory unless a copy of the cache shares it. The memory behind them
    // is given back by the next run, or at once when nothing is kept.
    void truncate(int64_t length);
    // Before a run on `added` tokens: makes room, and returns where present_key.<layer> and present_value.<layer> are
    // to be written. Empty for a growing cache. Of two copies of a fixed cache only one may run while both live.
    RoleTensors room_for(int64_t added);
    // Drops everything from the first token of `image` on.
    void forget_image(int32_t image);
    // Adds past_key.<layer> and past_value.<layer> to the inputs of the decoder.
    void bind(RoleTensors& inputs) const;
    // Takes over present_key.<layer> and present_value.<layer> after a run on `added`.
    // Throws Error(EP_ERROR_BACKEND) when the tensors have not grown by as many tokens.
    void take(const RoleTensors& outputs, const std::vector<Item>& added);

private:
    static constexpr int64_t kStep = 64;

    bool fixed() const { return spec_.kind == kFixedKv; }
    // Tensors for the first `length` tokens of each, over its memory where nobody else holds it; not filled.
    std::vector<TensorPtr> shortened(const std::vector<TensorPtr>& tensors, int64_t length) const;
    void truncate_growing(int64_t length);
    // Of a fixed cache: a tensor of this capacity with the tokens of `from`, zeros behind them.
    TensorPtr moved(Tensor& from, int64_t capacity) const;
    void clear_behind(Tensor& tensor, int64_t first, int64_t last) const noexcept;
    Shape expected(int64_t added) const;

    const Backend& backend_;
    KvSpec spec_;
    std::vector<TensorPtr> keys_, values_;  // one per layer, (1, H, length or capacity, d)
    std::vector<Item> items_;
    // Fixed: places before this one may hold numbers of tokens, forgotten ones too. Copies share it with the tensors.
    std::shared_ptr<int64_t> written_ = std::make_shared<int64_t>(0);
};

}  // namespace edgeprune
