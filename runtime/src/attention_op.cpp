#include "attention_op.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "attention_kernel.h"

namespace edgeprune {
namespace {

using attention::Stored;

enum Input : size_t { kQuery, kNewKey, kNewValue, kPastKey, kPastValue, kPositions, kInputs };
enum Output : size_t { kMixed, kPresentKey, kPresentValue, kOutputs };

// A status of onnxruntime on its way up.
struct Failed {
    ort::Status* status;
};

void check(ort::Status* status) {
    if (status != nullptr) throw Failed{status};
}

struct Tensor {
    std::array<int64_t, 4> shape{};
    size_t rank = 0;
    void* data = nullptr;
    const float* floats() const { return static_cast<const float*>(data); }
    size_t elements() const { return static_cast<size_t>(shape[0] * shape[1] * shape[2] * shape[3]); }
};

class Kernel {
public:
    Kernel(const ort::Slot* table, const ort::KernelInfo* info, Stored stored) : api_(table), stored_(stored) {
        check(api_.attribute_float(info, "scale", &scale_));
    }

    void compute(ort::KernelContext* context) const {
        std::array<Tensor, kInputs> in;
        for (size_t i = 0; i < kInputs; ++i) in[i] = input(context, i);
        require(in);
        const Tensor mixed = output(context, kMixed, in[kQuery]);
        const Tensor keys =
            written(in[kPastKey], in[kNewKey], in[kPositions], output(context, kPresentKey, in[kPastKey]));
        const Tensor values =
            written(in[kPastValue], in[kNewValue], in[kPositions], output(context, kPresentValue, in[kPastValue]));
        const auto& query = in[kQuery].shape;
        attention::Plan plan({query[0], query[1], keys.shape[1], query[2], keys.shape[2], query[3], scale_,
                              in[kQuery].floats(), stored_, keys.data, values.data,
                              static_cast<const int64_t*>(in[kPositions].data), static_cast<float*>(mixed.data)});
        run(context, plan);
    }

    const ort::OpApi& api() const { return api_; }

private:
    void run(const ort::KernelContext* context, attention::Plan& plan) const {
        const auto task = [](void* user, size_t index) { static_cast<attention::Plan*>(user)->run(index); };
        if (plan.small()) {
            for (size_t i = 0; i < plan.tasks(); ++i) plan.run(i);
        } else {
            check(api_.parallel_for(context, task, plan.tasks(), 0, &plan));
        }
        plan.finish();
    }

    Tensor of(ort::Value* value, size_t index) const {
        ort::TensorInfo* raw = nullptr;
        check(api_.tensor_info(value, &raw));
        const std::unique_ptr<ort::TensorInfo, void (*)(ort::TensorInfo*)> info(raw, api_.release_tensor_info);
        Tensor tensor;
        check(api_.dimension_count(raw, &tensor.rank));
        const size_t wanted = index == kPositions ? 2 : 4;
        if (tensor.rank != wanted) refuse("input " + std::to_string(index) + " has another rank");
        check(api_.dimensions(raw, tensor.shape.data(), tensor.rank));
        check(api_.tensor_data(value, &tensor.data));
        return tensor;
    }

    Tensor input(const ort::KernelContext* context, size_t index) const {
        const ort::Value* value = nullptr;
        check(api_.input(context, index, &value));
        return of(const_cast<ort::Value*>(value), index);  // its data is read only
    }

    Tensor output(ort::KernelContext* context, size_t index, const Tensor& like) const {
        ort::Value* value = nullptr;
        check(api_.output(context, index, like.shape.data(), like.rank, &value));
        Tensor tensor = like;
        check(api_.tensor_data(value, &tensor.data));
        return tensor;
    }

    void require(const std::array<Tensor, kInputs>& in) const {
        const auto& query = in[kQuery].shape;
        const auto& past = in[kPastKey].shape;
        const std::array<int64_t, 4> fresh{query[0], past[1], query[2], query[3]};
        const std::array<int64_t, 4> cache{query[0], past[1], past[2], query[3]};
        if (in[kNewKey].shape != fresh || in[kNewValue].shape != fresh || past != cache ||
            in[kPastValue].shape != cache)
            refuse("the shapes of query, new and cached keys and values do not fit");
        if (past[1] == 0 || query[1] % past[1] != 0) refuse("the query heads are no multiple of the key heads");
        if (past[2] > INT32_MAX) refuse("the cache has too many places");
        if (in[kPositions].shape[0] != query[0] || in[kPositions].shape[1] != query[2])
            refuse("there is not one position for each query");
        const auto* position = static_cast<const int64_t*>(in[kPositions].data);
        for (int64_t i = 0; i < query[0] * query[2]; ++i) {
            if (position[i] < 0 || position[i] >= past[2])
                refuse("position " + std::to_string(position[i]) + " is outside a cache of " + std::to_string(past[2]));
        }
    }

    // `present` with the tokens of `past`, and the new ones at their positions.
    Tensor written(const Tensor& past, const Tensor& fresh, const Tensor& positions, const Tensor& present) const {
        const size_t element = stored_ == Stored::float16 ? sizeof(attention::Half) : sizeof(float);
        if (present.data != past.data) std::memcpy(present.data, past.data, past.elements() * element);
        const int64_t heads = past.shape[1], places = past.shape[2], width = past.shape[3], count = fresh.shape[2];
        const auto* position = static_cast<const int64_t*>(positions.data);
        const float* from = fresh.floats();
        for (int64_t head = 0; head < past.shape[0] * heads; ++head) {
            for (int64_t t = 0; t < count; ++t, from += width) {
                const int64_t place = (head * places + position[head / heads * count + t]) * width;
                write_row(from, width, static_cast<char*>(present.data) + static_cast<size_t>(place) * element);
            }
        }
        return present;
    }

    void write_row(const float* from, int64_t width, void* to) const {
        if (stored_ == Stored::float32) {
            std::memcpy(to, from, static_cast<size_t>(width) * sizeof(float));
        } else if (!attention::to_halves(from, width, static_cast<attention::Half*>(to))) {
            const auto fits = [](float value) { return std::fabs(value) < attention::kHalfEnd; };
            refuse(
                "a key or value of " + std::to_string(*std::find_if_not(from, from + width, fits)) +
                " does not fit a cache in float16, which ends at 65504; build the variant again with --kv-cache fp32");
        }
    }

    [[noreturn]] void refuse(const std::string& why) const {
        throw Failed{api_.create_status(ort::kInvalidArgument, ("CachedAttention: " + why).c_str())};
    }

    ort::OpApi api_;
    Stored stored_;
    float scale_ = 1;
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
        return api.create_status(ort::kFail, "CachedAttention: bad allocation");
    } catch (const std::exception& error) {
        return api.create_status(ort::kFail, error.what());
    }
}

template <Stored stored>
ort::Status* create(const ort::CustomOp*, const ort::Slot* table, const ort::KernelInfo* info, void** kernel) {
    return guarded(ort::OpApi(table), [&] { *kernel = std::make_unique<Kernel>(table, info, stored).release(); });
}

ort::Status* compute(void* kernel, ort::KernelContext* context) {
    const auto& own = *static_cast<const Kernel*>(kernel);
    return guarded(own.api(), [&] { own.compute(context); });
}

void destroy(void* kernel) {
    const std::unique_ptr<Kernel> owned(static_cast<Kernel*>(kernel));
}

bool is_cache(size_t input) {
    return input == kPastKey || input == kPastValue;
}

// onnxruntime takes the one whose types are those of the node.
template <Stored stored>
ort::CustomOp described() {
    constexpr int32_t kCache = stored == Stored::float16 ? ort::kFloat16 : ort::kFloat32;
    ort::CustomOp op{};
    op.version = ort::kApiVersion;
    op.name = [](const ort::CustomOp*) { return "CachedAttention"; };
    op.provider = [](const ort::CustomOp*) { return "CPUExecutionProvider"; };
    op.input_count = [](const ort::CustomOp*) -> size_t { return kInputs; };
    op.input_type = [](const ort::CustomOp*, size_t index) -> int32_t {
        if (is_cache(index)) return kCache;
        return index == kPositions ? ort::kInt64 : ort::kFloat32;
    };
    op.output_count = [](const ort::CustomOp*) -> size_t { return kOutputs; };
    op.output_type = [](const ort::CustomOp*, size_t index) -> int32_t {
        return index == kMixed ? ort::kFloat32 : kCache;
    };
    op.input_characteristic = [](const ort::CustomOp*, size_t) -> int32_t { return ort::kRequired; };
    op.output_characteristic = [](const ort::CustomOp*, size_t) -> int32_t { return ort::kRequired; };
    op.input_memory = [](const ort::CustomOp*, size_t) -> int32_t { return ort::kOperandDefault; };
    op.create_kernel_v2 = create<stored>;
    op.compute_v2 = compute;
    op.destroy = destroy;
    op.start_version = [](const ort::CustomOp*) { return 1; };
    op.end_version = [](const ort::CustomOp*) { return 1; };
    return op;
}

}  // namespace

ort::Status* own_operators(const ort::Slot* table, ort::CustomOpDomain** domain) {
    static const std::array<ort::CustomOp, 2> ops{described<Stored::float32>(), described<Stored::float16>()};
    static std::mutex mutex;
    static auto* const domains = new std::map<const ort::Slot*, ort::CustomOpDomain*>;
    const ort::OpApi api(table);
    const std::lock_guard<std::mutex> lock(mutex);
    ort::CustomOpDomain*& known = (*domains)[table];
    if (known == nullptr) {
        ort::CustomOpDomain* made = nullptr;
        ort::Status* status = api.create_domain("edgeprune", &made);
        for (const ort::CustomOp& op : ops) {
            if (status == nullptr) status = api.add_op(made, &op);
        }
        if (status != nullptr) return status;
        known = made;
    }
    *domain = known;
    return nullptr;
}

}  // namespace edgeprune

// What onnxruntime calls in a library of operators: SessionOptions.register_custom_ops_library(libedgeprune).
extern "C" __attribute__((visibility("default"))) edgeprune::ort::Status* RegisterCustomOps(
    edgeprune::ort::SessionOptions* options, const edgeprune::ort::ApiBase* base) {
    const edgeprune::ort::Slot* const table = base->get_api(edgeprune::ort::kApiVersion);
    const edgeprune::ort::OpApi api(table);
    return edgeprune::guarded(api, [&] {
        edgeprune::ort::CustomOpDomain* domain = nullptr;
        edgeprune::check(edgeprune::own_operators(table, &domain));
        edgeprune::check(api.add_domain(options, domain));
    });
}
