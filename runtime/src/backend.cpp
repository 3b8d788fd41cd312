#include "backend.h"

#include <algorithm>
#include <cstring>

#include "error.h"
#include "float16.h"

namespace edgeprune {

size_t dtype_bytes(DType dtype) {
    switch (dtype) {
        case DType::float16:
            return 2;
        case DType::int64:
            return 8;
        case DType::float32:
        case DType::int32:
            return 4;
    }
    throw Error(EP_ERROR_INTERNAL, "unknown element type");
}

const char* dtype_name(DType dtype) {
    switch (dtype) {
        case DType::float32:
            return "float32";
        case DType::float16:
            return "float16";
        case DType::int64:
            return "int64";
        case DType::int32:
            return "int32";
    }
    throw Error(EP_ERROR_INTERNAL, "unknown element type");
}

std::vector<TensorPtr> Graph::run_into(const std::vector<NamedTensor>&, const std::vector<std::string>&,
                                       const std::vector<TensorPtr>&, RunContext&) const {
    throw Error(EP_ERROR_UNSUPPORTED, "this engine cannot write results into given memory");
}

// Ascending: where both share their memory, a block moves towards the beginning or stays.
void Backend::copy_blocks(Tensor& from, Tensor& to, int64_t blocks) const {
    const auto count = static_cast<size_t>(blocks);
    const size_t from_block = from.bytes() / count;
    const size_t to_block = to.bytes() / count;
    if (to_block == 0) return;
    const auto* source = static_cast<const uint8_t*>(from.data());
    auto* target = static_cast<uint8_t*>(to.mutable_data());
    for (size_t block = 0; block < count; ++block) {
        std::memmove(target + block * to_block, source + block * from_block, to_block);
    }
}

int64_t element_count(const Shape& shape) {
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    return count;
}

std::string shape_text(const Shape& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) {
        if (i > 0) text += ", ";
        text += shape[i] < 0 ? "?" : std::to_string(shape[i]);
    }
    return text + ")";
}

std::vector<float> to_floats(const Tensor& tensor) {
    std::vector<float> values(static_cast<size_t>(element_count(tensor.shape())));
    if (tensor.dtype() == DType::float32) {
        const auto* source = static_cast<const float*>(tensor.data());
        std::copy_n(source, values.size(), values.begin());
    } else if (tensor.dtype() == DType::float16) {
        const auto* source = static_cast<const uint16_t*>(tensor.data());
        std::transform(source, source + values.size(), values.begin(), half_to_float);
    } else {
        throw Error(EP_ERROR_INTERNAL, "a tensor of floats was expected");
    }
    return values;
}

TensorPtr from_floats(const Backend& backend, DType dtype, const Shape& shape, const float* values) {
    const auto count = static_cast<size_t>(element_count(shape));
    TensorPtr tensor = backend.new_tensor(dtype, shape);
    if (dtype == DType::float32) {
        std::copy_n(values, count, static_cast<float*>(tensor->mutable_data()));
    } else if (dtype == DType::float16) {
        std::transform(values, values + count, static_cast<uint16_t*>(tensor->mutable_data()), float_to_half);
    } else {
        throw Error(EP_ERROR_INTERNAL, "a tensor of floats was expected");
    }
    return tensor;
}

}  // namespace edgeprune
