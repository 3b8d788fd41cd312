#include "backend_ort.h"

#include <algorithm>
#include <utility>

#include "error.h"
#include "log.h"
#include "ort_provider.h"

namespace edgeprune {
namespace {

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
    // passed_on: outputs that stay on the provider's device.
    OrtGraph(const ort::Api& api, Owned<ort::Session> session, const OrtProvider& provider,
             std::vector<std::string> passed_on, std::map<std::string, int64_t> cpu_operators)
        : api_(api),
          session_(std::move(session)),
          provider_(provider),
          passed_on_(std::move(passed_on)),
          cpu_operators_(std::move(cpu_operators)) {
        check(api_, api_.default_allocator(&allocator_));
        check(api_, api_.allocator_memory(allocator_, &host_memory_));
        inputs_ = ports(api_.input_count, api_.input_name, api_.input_type);
        outputs_ = ports(api_.output_count, api_.output_name, api_.output_type);
    }

    const std::vector<Port>& inputs() const override { return inputs_; }
    const std::vector<Port>& outputs() const override { return outputs_; }
    std::map<std::string, int64_t> cpu_operators() const override { return cpu_operators_; }

    std::vector<TensorPtr> run(const std::vector<NamedTensor>& inputs, const std::vector<std::string>& output_names,
                               RunContext& context) const override {
        if (provider_.has_device() && !passed_on_.empty()) return run_bound(inputs, output_names, context);
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
        timed(context, [&](const ort::RunOptions* options) {
            return api_.run(session_.get(), options, names_in.data(), values.data(), values.size(), names_out.data(),
                            names_out.size(), results.data());
        });
        return wrap(results, output_names, memory);
    }

private:
    // The same with outputs on the provider's device, where that is asked for.
    std::vector<TensorPtr> run_bound(const std::vector<NamedTensor>& inputs,
                                     const std::vector<std::string>& output_names, RunContext& context) const {
        const ort::ProviderApi& api = provider_.api();
        ort::IoBinding* raw = nullptr;
        check(api_, api.create_binding(session_.get(), &raw));
        const Owned<ort::IoBinding> binding(raw, api.release_binding);
        for (const NamedTensor& input : inputs) {
            check(api_, api.bind_input(raw, input.name.c_str(), static_cast<const OrtTensor&>(*input.tensor).value()));
        }
        for (const std::string& name : output_names) {
            const bool stays = std::find(passed_on_.begin(), passed_on_.end(), name) != passed_on_.end();
            check(api_, api.bind_output_to_device(raw, name.c_str(), stays ? provider_.device_memory() : host_memory_));
        }
        timed(context,
              [&](const ort::RunOptions* options) { return api.run_with_binding(session_.get(), options, raw); });
        ort::Value** values = nullptr;
        size_t count = 0;
        check(api_, api.bound_outputs(raw, allocator_, &values, &count));
        const std::vector<ort::Value*> results(values, values + count);
        check(api_, api_.allocator_free(allocator_, values));
        return wrap(results, output_names, std::vector<TensorPtr>(count));
    }

    // One run, which the request may stop.
    template <class Run>
    void timed(RunContext& context, Run run_session) const {
        OrtRun run(api_);
        ort::Status* status = nullptr;
        {
            const Abort::Scope scope(context.abort, run);
            const Clock::time_point start = Clock::now();
            status = run_session(run.options());
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
            tensors.push_back(
                memory[i] ? memory[i]
                          : std::make_shared<OrtTensor>(api_, std::move(owned[i]), names[i], nullptr, &provider_));
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
    const OrtProvider& provider_;
    const std::vector<std::string> passed_on_;
    const std::map<std::string, int64_t> cpu_operators_;
    ort::Allocator* allocator_ = nullptr;           // onnxruntime's own; never freed
    const ort::MemoryInfo* host_memory_ = nullptr;  // of the allocator
    std::vector<Port> inputs_, outputs_;
};

class OrtBackend final : public Backend {
public:
    OrtBackend(const OrtLibrary& library, const ProviderChoice& choice)
        : library_(library), api_(library.api), provider_(library, choice) {
        check(api_, api_.default_allocator(&allocator_));
        check(api_, api_.allocator_memory(allocator_, &memory_));
    }

    // Where none is appended to the session options, the CPU one runs every node.
    std::string provider() const override { return provider_.name(); }
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
        provider_.append(raw, chosen.ranges);
        ort::Session* created = nullptr;
        check(api_, api_.create_session(library_.env, path.c_str(), raw, &created));
        Owned<ort::Session> session(created, api_.release_session);
        std::map<std::string, int64_t> on_cpu;
        if (provider_.has_device()) on_cpu = provider_.check_placement(created, path);
        return std::make_unique<OrtGraph>(api_, std::move(session), provider_, chosen.passed_on, std::move(on_cpu));
    }

    TensorPtr new_tensor(DType dtype, const Shape& shape) const override {
        ort::Value* value = nullptr;
        check(api_, api_.create_tensor(allocator_, shape.data(), shape.size(), element_type_of(dtype), &value));
        return std::make_shared<OrtTensor>(api_, Owned<ort::Value>(value, api_.release_value), "");
    }

    TensorPtr room_within(const TensorPtr& whole, const Shape& shape) const override {
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
        // A model has several graphs, each with threads of its own: those of a graph that has just ended must not spin
        // beside those of the next one.
        const bool spin = threading.spin;
        check(api_,
              api_.add_session_config(options, spin ? "session.force_spinning_stop" : "session.intra_op.allow_spinning",
                                      spin ? "1" : "0"));
        std::string affinities;  // onnxruntime counts processors from 1 and pins all threads but the caller's
        for (size_t i = 1; i < threading.cores.size(); ++i) {
            affinities += (i > 1 ? ";" : "") + std::to_string(threading.cores[i] + 1);
        }
        if (affinities.empty()) return;
        check(api_, api_.add_session_config(options, "session.intra_op_thread_affinities", affinities.c_str()));
    }

    const OrtLibrary& library_;
    const ort::Api& api_;
    const OrtProvider provider_;
    ort::Allocator* allocator_ = nullptr;
    const ort::MemoryInfo* memory_ = nullptr;  // of the allocator
};

}  // namespace

std::unique_ptr<Backend> open_ort_backend(const std::string& library, Version least, const ProviderChoice& choice) {
    return std::make_unique<OrtBackend>(open_onnxruntime(library, least), choice);
}

}  // namespace edgeprune
