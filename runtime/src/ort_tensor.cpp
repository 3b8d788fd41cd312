#include "ort_tensor.h"

#include <utility>

#include "error.h"

namespace edgeprune {

void check(const ort::Api& api, ort::Status* status) {
    if (status == nullptr) return;
    const Owned<ort::Status> owned(status, api.release_status);
    const std::string text = api.error_message(status);
    // onnxruntime has no status code of its own for this, only its words.
    const bool memory = text.find("Failed to allocate memory") != std::string::npos ||
                        text.find("bad_alloc") != std::string::npos || text.find("bad allocation") != std::string::npos;
    throw Error(memory ? EP_ERROR_OUT_OF_MEMORY : EP_ERROR_BACKEND, "onnxruntime: " + text);
}

int32_t element_type_of(DType dtype) {
    switch (dtype) {
        case DType::float32:
            return ort::kFloat32;
        case DType::float16:
            return ort::kFloat16;
        case DType::int64:
            return ort::kInt64;
        case DType::int32:
            return ort::kInt32;
    }
    throw Error(EP_ERROR_INTERNAL, "unknown element type");
}

DType dtype_of(int32_t element_type, const std::string& name) {
    switch (element_type) {
        case ort::kFloat32:
            return DType::float32;
        case ort::kFloat16:
            return DType::float16;
        case ort::kInt64:
            return DType::int64;
        case ort::kInt32:
            return DType::int32;
        default:
            throw Error(EP_ERROR_BUNDLE, "tensor \"" + name + "\" has onnxruntime element type " +
                                             std::to_string(element_type) + ", which this library does not bind");
    }
}

Shape shape_of(const ort::Api& api, const ort::TensorInfo* info) {
    size_t rank = 0;
    check(api, api.dimension_count(info, &rank));
    Shape shape(rank);
    check(api, api.dimensions(info, shape.data(), rank));
    return shape;
}

OrtTensor::OrtTensor(const ort::Api& api, Owned<ort::Value> value, const std::string& name, TensorPtr owner,
                     const Download* device)
    : api_(api),
      value_(std::move(value)),
      owner_(std::move(owner)),
      device_(device != nullptr && device->is_on_device(value_.get()) ? device : nullptr),
      copy_(nullptr, api.release_value) {
    ort::TensorInfo* raw = nullptr;
    check(api, api.tensor_info(value_.get(), &raw));
    const Owned<ort::TensorInfo> info(raw, api.release_tensor_info);
    int32_t type = 0;
    check(api, api.element_type(raw, &type));
    dtype_ = dtype_of(type, name);
    shape_ = shape_of(api, raw);
    if (device_ == nullptr) check(api, api.tensor_data(value_.get(), &data_));
}

const void* OrtTensor::data() const {
    if (device_ != nullptr && copy_ == nullptr) {
        Owned<ort::Value> copy = device_->to_host(value_.get(), dtype_);
        check(api_, api_.tensor_data(copy.get(), &data_));
        copy_ = std::move(copy);
    }
    return data_;
}

void* OrtTensor::mutable_data() {
    static_cast<void>(data());
    if (device_ != nullptr) {
        value_ = std::move(copy_);
        device_ = nullptr;
    }
    return data_;
}

}  // namespace edgeprune
