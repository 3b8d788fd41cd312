#include "kv_cache.h"

#include <algorithm>
#include <cstring>

#include "error.h"

namespace edgeprune {
namespace {

std::string role(const char* name, size_t layer) {
    return std::string(name) + "." + std::to_string(layer);
}

}  // namespace

KvCache::KvCache(const Backend& backend, const KvSpec& spec) : backend_(backend), spec_(spec) {
    for (int64_t layer = 0; layer < spec.layers; ++layer) {
        keys_.push_back(backend.new_tensor(spec.dtype, {1, spec.heads, 0, spec.head_dim}));
        values_.push_back(backend.new_tensor(spec.dtype, {1, spec.heads, 0, spec.head_dim}));
    }
}

int64_t KvCache::length() const {
    return keys_.front()->shape()[2];
}

size_t KvCache::bytes() const {
    size_t bytes = 0;
    for (const TensorPtr& tensor : keys_) bytes += tensor->bytes();
    for (const TensorPtr& tensor : values_) bytes += tensor->bytes();
    return bytes;
}

int64_t KvCache::common_prefix(const std::vector<Item>& sequence) const {
    const auto end = std::mismatch(items_.begin(), items_.end(), sequence.begin(), sequence.end());
    return end.first - items_.begin();
}

std::vector<TensorPtr> KvCache::room_for(const std::vector<TensorPtr>& tensors, int64_t length) const {
    const Shape shape{1, spec_.heads, length, spec_.head_dim};
    std::vector<TensorPtr> room;
    for (const TensorPtr& tensor : tensors) {
        // A copy of this cache may hold the tensor too. An empty cache gives its memory back.
        const bool ours = tensor.use_count() == 1 && length > 0;
        room.push_back(ours ? backend_.view(tensor, shape) : backend_.new_tensor(spec_.dtype, shape));
    }
    return room;
}

// Ascending: where both share their memory, a head moves towards the beginning or stays.
void KvCache::copy_heads(Tensor& from, Tensor& to) const noexcept {
    const auto heads = static_cast<size_t>(spec_.heads);
    const size_t from_head = from.bytes() / heads;
    const size_t to_head = to.bytes() / heads;
    if (to_head == 0) return;
    const auto* source = static_cast<const uint8_t*>(from.data());
    auto* target = static_cast<uint8_t*>(to.mutable_data());
    for (size_t head = 0; head < heads; ++head) {
        std::memmove(target + head * to_head, source + head * from_head, to_head);
    }
}

void KvCache::truncate(int64_t length) {
    if (length >= this->length()) return;
    std::vector<TensorPtr> keys = room_for(keys_, length);
    std::vector<TensorPtr> values = room_for(values_, length);
    // From here on nothing fails: half a move in place could not be undone.
    for (size_t layer = 0; layer < keys_.size(); ++layer) {
        copy_heads(*keys_[layer], *keys[layer]);
        copy_heads(*values_[layer], *values[layer]);
    }
    keys_.swap(keys);
    values_.swap(values);
    items_.resize(static_cast<size_t>(length));
}

void KvCache::forget_image(int32_t image) {
    const auto found =
        std::find_if(items_.begin(), items_.end(), [image](const Item& item) { return item.image == image; });
    truncate(found - items_.begin());
}

void KvCache::bind(RoleTensors& inputs) const {
    for (size_t layer = 0; layer < keys_.size(); ++layer) {
        inputs[role("past_key", layer)] = keys_[layer];
        inputs[role("past_value", layer)] = values_[layer];
    }
}

void KvCache::take(const RoleTensors& outputs, const std::vector<Item>& added) {
    const Shape expected{1, spec_.heads, length() + static_cast<int64_t>(added.size()), spec_.head_dim};
    std::vector<TensorPtr> keys, values;
    for (size_t layer = 0; layer < keys_.size(); ++layer) {
        keys.push_back(outputs.at(role("present_key", layer)));
        values.push_back(outputs.at(role("present_value", layer)));
        for (const TensorPtr& tensor : {keys.back(), values.back()}) {
            if (tensor->shape() == expected && tensor->dtype() == spec_.dtype) continue;
            throw Error(EP_ERROR_BACKEND, "the decoder gave a KV cache of shape " + shape_text(tensor->shape()) +
                                              " in layer " + std::to_string(layer) + ", " + shape_text(expected) +
                                              " was expected");
        }
    }
    items_.insert(items_.end(), added.begin(), added.end());
    keys_.swap(keys);
    values_.swap(values);
}

}  // namespace edgeprune
