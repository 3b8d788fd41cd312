#include "backend_ort.h"

#include <algorithm>
#include <utility>

#include "error.h"
#include "log.h"

namespace edgeprune {
namespace {

template <class Object>
using Owned = std::unique_ptr<Object, void (*)(Object*)>;

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

class OrtTensor final : public Tensor {
public:
    OrtTensor(const ort::Api& api, Owned<ort::Value> value, const std::string& name, TensorPtr owner = nullptr)
        : value_(std::move(value)), owner_(std::move(owner)), dtype_(DType::float32) {
        ort::TensorInfo* raw = nullptr;
        check(api, api.tensor_info(value_.get(), &raw));
        const Owned<ort::TensorInfo> info(raw, api.release_tensor_info);
        int32_t type = 0;
        check(api, api.element_type(raw, &type));
        dtype_ = dtype_of(type, name);
        shape_ = shape_of(api, raw);
        check(api, api.tensor_data(value_.get(), &data_));
    }

    DType dtype() const override { return dtype_; }
    const Shape& shape() const override { return shape_; }
    const void* data() const override { return data_; }
    void* mutable_data() override { return data_; }
    ort::Value* value() const { return value_.get(); }
    // Whose memory a view shows; null: its own.
    const TensorPtr& owner() const { return owner_; }

private:
    Owned<ort::Value> value_;
    TensorPtr owner_;
    DType dtype_;
    Shape shape_;
    void* data_ = nullptr;
};

class OrtRun final : public Stoppable {
public:
    explicit OrtRun(const ort::Api& api) : api_(api), options_(nullptr, api.release_run_options) {
        ort::RunOptions* raw = nullptr;
        check(api, api.create_run_options(&raw));
        options_.reset(raw);
    }
    void stop() noexcept override {
        ort::Status* status = api_.set_terminate(options_.get());
        if (status != nullptr) api_.release_status(status);
    }
    const ort::RunOptions* options() const { return options_.get(); }

private:
    const ort::Api& api_;
    Owned<ort::RunOptions> options_;
};

using CountCall = ort::Status* (*)(const ort::Session*, size_t*);
using NameCall = ort::Status* (*)(const ort::Session*, size_t, ort::Allocator*, char**);
using TypeCall = ort::Status* (*)(const ort::Session*, size_t, ort::TypeInfo**);

class OrtGraph final : public Graph {
public:
    OrtGraph(const ort::Api& api, Owned<ort::Session> session) : api_(api), session_(std::move(session)) {
        check(api_, api_.default_allocator(&allocator_));
        inputs_ = ports(api_.input_count, api_.input_name, api_.input_type);
        outputs_ = ports(api_.output_count, api_.output_name, api_.output_type);
    }

    const std::vector<Port>& inputs() const override { return inputs_; }
    const std::vector<Port>& outputs() const override { return outputs_; }

    std::vector<TensorPtr> run(const std::vector<NamedTensor>& inputs, const std::vector<std::string>& output_names,
                               RunContext& context) const override {
        return run_into(inputs, output_names, std::vector<TensorPtr>(output_names.size()), context);
    }

    std::vector<TensorPtr> run_into(const std::vector<NamedTensor>& inputs,
                                    const std::vector<std::string>& output_names, const std::vector<TensorPtr>& memory,
                                    RunContext& context) const override {
        std::vector<const char*> names_in, names_out;
        std::vector<const ort::Value*> values;
        for (const NamedTensor& input : inputs) {
            names_in.push_back(input.name.c_str());
            values.push_back(static_cast<const OrtTensor&>(*input.tensor).value());
        }
        for (const std::string& name : output_names) names_out.push_back(name.c_str());
        std::vector<ort::Value*> results;
        for (const TensorPtr& tensor : memory) {
            results.push_back(tensor ? static_cast<OrtTensor&>(*tensor).value() : nullptr);
        }
        run_session(names_in, values, names_out, results, context);
        return wrap(results, output_names, memory);
    }

private:
    void run_session(const std::vector<const char*>& names_in, const std::vector<const ort::Value*>& values,
                     const std::vector<const char*>& names_out, std::vector<ort::Value*>& results,
                     RunContext& context) const {
        OrtRun run(api_);
        ort::Status* status = nullptr;
        {
            const Abort::Scope scope(context.abort, run);
            const Clock::time_point start = Clock::now();
            status = api_.run(session_.get(), run.options(), names_in.data(), values.data(), values.size(),
                              names_out.data(), names_out.size(), results.data());
            context.graph_ms += elapsed_ms(start);
        }
        if (status == nullptr) return;
        // A terminated run reports a plain failure; the request tells why.
        const ep_status requested = context.abort.requested();
        if (requested != EP_OK) {
            api_.release_status(status);
            context.abort.check();
        }
        check(api_, status);
    }

    std::vector<TensorPtr> wrap(const std::vector<ort::Value*>& results, const std::vector<std::string>& names,
                                const std::vector<TensorPtr>& memory) const {
        std::vector<Owned<ort::Value>> owned;
        owned.reserve(results.size());
        for (size_t i = 0; i < results.size(); ++i) {
            owned.emplace_back(memory[i] ? nullptr : results[i], api_.release_value);
        }
        std::vector<TensorPtr> tensors;
        for (size_t i = 0; i < owned.size(); ++i) {
            tensors.push_back(memory[i] ? memory[i] : std::make_shared<OrtTensor>(api_, std::move(owned[i]), names[i]));
        }
        return tensors;
    }

    std::vector<Port> ports(CountCall count_call, NameCall name_call, TypeCall type_call) const {
        size_t count = 0;
        check(api_, count_call(session_.get(), &count));
        std::vector<Port> found;
        for (size_t i = 0; i < count; ++i) found.push_back(port(i, name_call, type_call));
        return found;
    }

    Port port(size_t index, NameCall name_call, TypeCall type_call) const {
        char* raw_name = nullptr;
        check(api_, name_call(session_.get(), index, allocator_, &raw_name));
        const std::string name = raw_name;
        check(api_, api_.allocator_free(allocator_, raw_name));
        ort::TypeInfo* raw_type = nullptr;
        check(api_, type_call(session_.get(), index, &raw_type));
        const Owned<ort::TypeInfo> type(raw_type, api_.release_type_info);
        const ort::TensorInfo* info = nullptr;
        check(api_, api_.as_tensor_info(raw_type, &info));
        if (info == nullptr) throw Error(EP_ERROR_BUNDLE, "\"" + name + "\" of a graph is not a tensor");
        int32_t element_type = 0;
        check(api_, api_.element_type(info, &element_type));
        return {name, dtype_of(element_type, name), shape_of(api_, info)};
    }

    const ort::Api& api_;
    Owned<ort::Session> session_;
    ort::Allocator* allocator_ = nullptr;  // onnxruntime's own; never freed
    std::vector<Port> inputs_, outputs_;
};

class OrtBackend final : public Backend {
public:
    explicit OrtBackend(const OrtLibrary& library) : library_(library), api_(library.api) {
        check(api_, api_.default_allocator(&allocator_));
        check(api_, api_.allocator_memory(allocator_, &memory_));
    }

    // No provider is appended to the session options, so the CPU one runs every node.
    std::string provider() const override { return "CPUExecutionProvider"; }
    std::string version() const override { return library_.version; }
    std::string library() const override { return library_.path; }

    std::unique_ptr<Graph> open_graph(const std::string& path, const GraphOptions& chosen) const override {
        ort::SessionOptions* raw = nullptr;
        check(api_, api_.create_session_options(&raw));
        const Owned<ort::SessionOptions> options(raw, api_.release_session_options);
        check(api_, api_.set_optimisation(raw, ort::kOptimiseAll));
        check(api_, api_.set_log_severity(raw, log_level()));
        check(api_, api_.add_custom_domain(raw, library_.operators));
        set_threading(raw, chosen.threading);
        if (chosen.map_weights) check(api_, api_.add_session_config(raw, "session.disable_prepacking", "1"));
        if (!chosen.profile_prefix.empty()) check(api_, api_.enable_profiling(raw, chosen.profile_prefix.c_str()));
        ort::Session* session = nullptr;
        check(api_, api_.create_session(library_.env, path.c_str(), raw, &session));
        return std::make_unique<OrtGraph>(api_, Owned<ort::Session>(session, api_.release_session));
    }

    TensorPtr new_tensor(DType dtype, const Shape& shape) const override {
        ort::Value* value = nullptr;
        check(api_, api_.create_tensor(allocator_, shape.data(), shape.size(), element_type_of(dtype), &value));
        return std::make_shared<OrtTensor>(api_, Owned<ort::Value>(value, api_.release_value), "");
    }

    TensorPtr view(const TensorPtr& whole, const Shape& shape) const override {
        const size_t bytes = static_cast<size_t>(element_count(shape)) * dtype_bytes(whole->dtype());
        if (bytes > whole->bytes()) throw Error(EP_ERROR_INTERNAL, "a view is larger than what it shows");
        const auto& known = static_cast<const OrtTensor&>(*whole);
        ort::Value* value = nullptr;
        check(api_, api_.create_tensor_over(memory_, whole->mutable_data(), bytes, shape.data(), shape.size(),
                                            element_type_of(whole->dtype()), &value));
        Owned<ort::Value> owned(value, api_.release_value);
        return std::make_shared<OrtTensor>(api_, std::move(owned), "", known.owner() ? known.owner() : whole);
    }

private:
    void set_threading(ort::SessionOptions* options, const Threading& threading) const {
        check(api_, api_.set_intra_op_threads(options, threading.threads));
        if (!threading.spin) check(api_, api_.add_session_config(options, "session.intra_op.allow_spinning", "0"));
        std::string affinities;  // onnxruntime counts processors from 1 and pins all threads but the caller's
        for (size_t i = 1; i < threading.cores.size(); ++i) {
            affinities += (i > 1 ? ";" : "") + std::to_string(threading.cores[i] + 1);
        }
        if (affinities.empty()) return;
        check(api_, api_.add_session_config(options, "session.intra_op_thread_affinities", affinities.c_str()));
    }

    const OrtLibrary& library_;
    const ort::Api& api_;
    ort::Allocator* allocator_ = nullptr;
    const ort::MemoryInfo* memory_ = nullptr;  // of the allocator
};

}  // namespace

std::unique_ptr<Backend> open_ort_backend(const std::string& library, Version least) {
    return std::make_unique<OrtBackend>(open_onnxruntime(library, least));
}

}  // namespace edgeprune
