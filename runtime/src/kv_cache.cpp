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

std::vector<TensorPtr> KvCache::shortened(const std::vector<TensorPtr>& tensors, int64_t length) const {
    const Shape shape{1, spec_.heads, length, spec_.head_dim};
    std::vector<TensorPtr> room;
    for (const TensorPtr& tensor : tensors) {
        // A copy of this cache may hold the tensor too. An empty cache gives its memory back.
        const bool ours = tensor.use_count() == 1 && length > 0;
        if (!ours && length > 0) static_cast<void>(tensor->data());  // from a device: that may fail, so before any move
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

TensorPtr KvCache::moved(Tensor& from, int64_t capacity) const {
    TensorPtr to = backend_.new_tensor(spec_.dtype, {1, spec_.heads, capacity, spec_.head_dim});
    const auto heads = static_cast<size_t>(spec_.heads);
    const size_t row = static_cast<size_t>(spec_.head_dim) * dtype_bytes(spec_.dtype);
    const size_t used = static_cast<size_t>(length()) * row;
    const size_t from_head = from.bytes() / heads, to_head = to->bytes() / heads;
    for (size_t head = 0; head < heads && used > 0; ++head) {
        std::memcpy(static_cast<uint8_t*>(to->mutable_data()) + head * to_head,
                    static_cast<const uint8_t*>(from.data()) + head * from_head, used);
    }
    clear_behind(*to, length(), capacity);
    return to;
}

void KvCache::clear_behind(Tensor& tensor, int64_t first, int64_t last) const noexcept {
    last = std::min(last, tensor.shape()[2]);
    if (first >= last) return;
    const size_t row = static_cast<size_t>(spec_.head_dim) * dtype_bytes(spec_.dtype);
    const size_t head_bytes = tensor.bytes() / static_cast<size_t>(spec_.heads);
    auto* data = static_cast<uint8_t*>(tensor.mutable_data());
    for (int64_t head = 0; head < spec_.heads; ++head) {
        std::memset(data + static_cast<size_t>(head) * head_bytes + static_cast<size_t>(first) * row, 0,
                    static_cast<size_t>(last - first) * row);
    }
}

RoleTensors KvCache::room_for(int64_t added) {
    if (!fixed()) return {};
    const int64_t need = length() + added;
    int64_t capacity = 0;
    for (const TensorPtr& tensor : keys_) capacity = std::max(capacity, tensor->shape()[2]);
    if (capacity < need) capacity = capacity_for(need);
    RoleTensors memory;
    bool anew = false;
    // One tensor after the other, so that the old cache never stands beside the new one as a whole.
    for (size_t layer = 0; layer < keys_.size(); ++layer) {
        for (std::vector<TensorPtr>* tensors : {&keys_, &values_}) {
            TensorPtr& tensor = (*tensors)[layer];
            if (tensor->shape()[2] == capacity) {
                clear_behind(*tensor, length(), *written_);
            } else {
                tensor = moved(*tensor, capacity);
                anew = true;
            }
            memory[role(tensors == &keys_ ? "present_key" : "present_value", layer)] = tensor;
        }
    }
    if (anew) written_ = std::make_shared<int64_t>(0);
    *written_ = need;
    return memory;
}

void KvCache::truncate(int64_t length) {
    if (length >= this->length()) return;
    if (!fixed() || length == 0) return truncate_growing(length);
    items_.resize(static_cast<size_t>(length));
    if (written_.use_count() == 1) return;
    // A copy needs the tokens that this cache is about to overwrite.
    std::vector<TensorPtr> keys, values;
    for (const TensorPtr& tensor : keys_) keys.push_back(moved(*tensor, tensor->shape()[2]));
    for (const TensorPtr& tensor : values_) values.push_back(moved(*tensor, tensor->shape()[2]));
    keys_.swap(keys);
    values_.swap(values);
    written_ = std::make_shared<int64_t>(length);
}

void KvCache::truncate_growing(int64_t length) {
    std::vector<TensorPtr> keys = shortened(keys_, length);
    std::vector<TensorPtr> values = shortened(values_, length);
    // From here on nothing fails: half a move in place could not be undone.
    for (size_t layer = 0; layer < keys_.size(); ++layer) {
        copy_heads(*keys_[layer], *keys[layer]);
        copy_heads(*values_[layer], *values[layer]);
    }
    keys_.swap(keys);
    values_.swap(values);
    items_.resize(static_cast<size_t>(length));
    if (length == 0) written_ = std::make_shared<int64_t>(0);
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

Shape KvCache::expected(int64_t added) const {
    return {1, spec_.heads, fixed() ? keys_.front()->shape()[2] : length() + added, spec_.head_dim};
}

void KvCache::take(const RoleTensors& outputs, const std::vector<Item>& added) {
    const Shape expected = this->expected(static_cast<int64_t>(added.size()));
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
