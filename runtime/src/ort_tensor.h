// Tensors of onnxruntime, in the machine's memory or on a device.
#pragma once

#include <memory>
#include <string>

#include "backend.h"
#include "ort_provider_api.h"

namespace edgeprune {

template <class Object>
using Owned = std::unique_ptr<Object, void (*)(Object*)>;

// Releases a status. Throws Error when it is a failure: EP_ERROR_OUT_OF_MEMORY or EP_ERROR_BACKEND, with its text.
void check(const ort::Api& api, ort::Status* status);

int32_t element_type_of(DType dtype);
// Throws Error(EP_ERROR_BUNDLE) for a type that this library does not bind; `name`: of the tensor.
DType dtype_of(int32_t element_type, const std::string& name);
Shape shape_of(const ort::Api& api, const ort::TensorInfo* info);

// Brings tensors from a device into the machine's memory.
class Download {
public:
    virtual ~Download() = default;
    virtual bool is_on_device(const ort::Value* value) const = 0;
    virtual Owned<ort::Value> to_host(const ort::Value* value, DType dtype) const = 0;
};

// One that lies on a device stays there until its numbers are asked for. Then there is a copy of them in the machine's
// memory as well, or there alone once they may be written.
class OrtTensor final : public Tensor {
public:
    // device: of the provider, where `value` may lie there; it outlives the tensor. owner: whose memory a view shows.
    OrtTensor(const ort::Api& api, Owned<ort::Value> value, const std::string& name, TensorPtr owner = nullptr,
              const Download* device = nullptr);

    DType dtype() const override { return dtype_; }
    const Shape& shape() const override { return shape_; }
    const void* data() const override;
    void* mutable_data() override;
    ort::Value* value() const { return value_.get(); }
    // Whose memory a view shows; null: its own.
    const TensorPtr& owner() const { return owner_; }

private:
    const ort::Api& api_;
    Owned<ort::Value> value_;
    TensorPtr owner_;
    const Download* device_;          // null: the value lies in the machine's memory
    mutable Owned<ort::Value> copy_;  // of a value on a device
    DType dtype_ = DType::float32;
    Shape shape_;
    mutable void* data_ = nullptr;
};

}  // namespace edgeprune
