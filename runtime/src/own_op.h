// What the library's own operators have in common: reading and making tensors through onnxruntime's C interface, errors
// on their way up, and the description that onnxruntime registers an operator by.
#pragma once

#include <array>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "ort_custom_op.h"

namespace edgeprune::own_op {

// A status of onnxruntime on its way up.
struct Failed {
    ort::Status* status;
};

inline void check(ort::Status* status) {
    if (status != nullptr) throw Failed{status};
}

struct Tensor {
    std::array<int64_t, 4> shape{};
    size_t rank = 0;
    void* data = nullptr;
    const float* floats() const { return static_cast<const float*>(data); }
    size_t elements() const {
        size_t count = 1;
        for (size_t i = 0; i < rank; ++i) count *= static_cast<size_t>(shape[i]);
        return count;
    }
};

// One call of a kernel: its tensors, and threads to work on.
class Call {
public:
    // name: of the operator, for errors.
    Call(const ort::OpApi& api, ort::KernelContext* context, const char* name)
        : api_(api), context_(context), name_(name) {}

    // Throws Failed where the input has more than four dimensions.
    Tensor input(size_t index) const {
        const ort::Value* value = nullptr;
        check(api_.input(context_, index, &value));
        ort::TensorInfo* raw = nullptr;
        check(api_.tensor_info(value, &raw));
        const std::unique_ptr<ort::TensorInfo, void (*)(ort::TensorInfo*)> info(raw, api_.release_tensor_info);
        Tensor tensor;
        check(api_.dimension_count(raw, &tensor.rank));
        if (tensor.rank > tensor.shape.size()) refuse("input " + std::to_string(index) + " has too many dimensions");
        check(api_.dimensions(raw, tensor.shape.data(), tensor.rank));
        check(api_.tensor_data(const_cast<ort::Value*>(value), &tensor.data));  // its data is read only
        return tensor;
    }

    // like: its shape.
    Tensor output(size_t index, const Tensor& like) const {
        ort::Value* value = nullptr;
        check(api_.output(context_, index, like.shape.data(), like.rank, &value));
        Tensor tensor = like;
        check(api_.tensor_data(value, &tensor.data));
        return tensor;
    }

    // Runs the tasks of a plan, on onnxruntime's threads unless it is small.
    template <class Plan>
    void run(Plan& plan) const {
        if (plan.small()) {
            for (size_t i = 0; i < plan.tasks(); ++i) plan.run(i);
        } else {
            const auto task = [](void* user, size_t index) { static_cast<Plan*>(user)->run(index); };
            check(api_.parallel_for(context_, task, plan.tasks(), 0, &plan));
        }
    }

    [[noreturn]] void refuse(const std::string& why) const {
        throw Failed{api_.create_status(ort::kInvalidArgument, (std::string(name_) + ": " + why).c_str())};
    }

private:
    const ort::OpApi& api_;
    ort::KernelContext* context_;
    const char* name_;
};

// No exception may pass through onnxruntime.
template <class Work>
ort::Status* guarded(const ort::OpApi& api, const Work& work) noexcept {
    try {
        work();
        return nullptr;
    } catch (const Failed& failed) {
        return failed.status;
    } catch (const std::bad_alloc&) {
        return api.create_status(ort::kFail, "bad allocation");  // no text is put together: that would allocate
    } catch (const std::exception& error) {
        return api.create_status(ort::kFail, error.what());
    }
}

template <class Kernel>
struct Held {
    ort::OpApi api;
    Kernel kernel;
};

// Kernel: kName, kInputs, kOutputs, input_type(size_t) and output_type(size_t) are static; it is made of
// (const OpApi&, const KernelInfo*) and has compute(const Call&) const.
template <class Kernel>
ort::CustomOp described() {
    ort::CustomOp op{};
    op.version = ort::kApiVersion;
    op.name = [](const ort::CustomOp*) { return Kernel::kName; };
    op.provider = [](const ort::CustomOp*) { return "CPUExecutionProvider"; };
    op.input_count = [](const ort::CustomOp*) -> size_t { return Kernel::kInputs; };
    op.input_type = [](const ort::CustomOp*, size_t index) -> int32_t { return Kernel::input_type(index); };
    op.output_count = [](const ort::CustomOp*) -> size_t { return Kernel::kOutputs; };
    op.output_type = [](const ort::CustomOp*, size_t index) -> int32_t { return Kernel::output_type(index); };
    op.input_characteristic = [](const ort::CustomOp*, size_t) -> int32_t { return ort::kRequired; };
    op.output_characteristic = [](const ort::CustomOp*, size_t) -> int32_t { return ort::kRequired; };
    op.input_memory = [](const ort::CustomOp*, size_t) -> int32_t { return ort::kOperandDefault; };
    op.create_kernel_v2 = [](const ort::CustomOp*, const ort::Slot* table, const ort::KernelInfo* info,
                             void** kernel) -> ort::Status* {
        const ort::OpApi api(table);
        return guarded(
            api, [&] { *kernel = std::make_unique<Held<Kernel>>(Held<Kernel>{api, Kernel(api, info)}).release(); });
    };
    op.compute_v2 = [](void* kernel, ort::KernelContext* context) -> ort::Status* {
        const auto& held = *static_cast<const Held<Kernel>*>(kernel);
        return guarded(held.api, [&] { held.kernel.compute(Call(held.api, context, Kernel::kName)); });
    };
    op.destroy = [](void* kernel) { const std::unique_ptr<Held<Kernel>> owned(static_cast<Held<Kernel>*>(kernel)); };
    op.start_version = [](const ort::CustomOp*) { return 1; };
    op.end_version = [](const ort::CustomOp*) { return 1; };
    return op;
}

}  // namespace edgeprune::own_op
