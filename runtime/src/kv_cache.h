// Keys and values of the sequence so far, and which sequence that is.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "bound_graph.h"
#include "prompt.h"

namespace edgeprune {

class KvCache {
public:
    KvCache(const Backend& backend, const KvSpec& spec);

    // Tokens in the cache, read from the shape of the executed tensors.
    int64_t length() const;
    size_t bytes() const;
    // The sequence that the cache holds; as long as length().
    const std::vector<Item>& items() const { return items_; }
    // How many items at the beginning of `sequence` the cache holds already.
    int64_t common_prefix(const std::vector<Item>& sequence) const;
    // Keeps the first `length` tokens, in the same memory unless a copy of the cache shares it. The memory behind them
    // is given back by the next run, or at once when nothing is kept.
    void truncate(int64_t length);
    // Drops everything from the first token of `image` on.
    void forget_image(int32_t image);
    // Adds past_key.<layer> and past_value.<layer> to the inputs of the decoder.
    void bind(RoleTensors& inputs) const;
    // Takes over present_key.<layer> and present_value.<layer> after a run on `added`.
    // Throws Error(EP_ERROR_BACKEND) when the tensors have not grown by as many tokens.
    void take(const RoleTensors& outputs, const std::vector<Item>& added);

private:
    // Tensors for the first `length` tokens of each, over its memory where nobody else holds it; not filled.
    std::vector<TensorPtr> room_for(const std::vector<TensorPtr>& tensors, int64_t length) const;
    // The beginning of every head of `from`, as much as `to` takes.
    void copy_heads(Tensor& from, Tensor& to) const noexcept;

    const Backend& backend_;
    KvSpec spec_;
    std::vector<TensorPtr> keys_, values_;  // one per layer, (1, H, length, d)
    std::vector<Item> items_;
};

}  // namespace edgeprune
