#include "ort_provider.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "error.h"

namespace edgeprune {
namespace {

constexpr const char* kRecordPlacement = "session.record_ep_graph_assignment_info";

// An ONNX model, opset 13: y = Identity(x), x of any rank and of the element type in the two gaps.
std::string identity_model(int32_t element_type) {
    const auto type = static_cast<char>(element_type);
    const std::string tensor = std::string("\x12\x04\x0a\x02\x08", 5) + type;
    const std::string node("\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity", 18);
    const std::string input = "\x0a\x01x" + tensor, output = "\x0a\x01y" + tensor;
    const auto field = [](char tag, const std::string& content) {
        return std::string{tag, static_cast<char>(content.size())} + content;
    };
    const std::string graph = node + "\x12\x01g" + field('\x5a', input) + field('\x62', output);
    return std::string("\x08\x08", 2) + field('\x3a', graph) + std::string("\x42\x02\x10\x0d", 4);
}

// What onnxruntime says, without where in its sources it says it.
std::string reason_of(std::string text) {
    const std::array<const char*, 3> beginnings{"with error: ", "onnxruntime: ", "CUDA failure "};
    for (const char* beginning : beginnings) {
        const size_t at = text.find(beginning);
        if (at == std::string::npos) continue;
        const bool keep = std::strncmp(beginning, "CUDA", 4) == 0;
        text = text.substr(keep ? at : at + std::strlen(beginning));
    }
    text = text.substr(0, text.find('\n'));
    text = text.substr(0, text.find(" ; "));
    while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.pop_back();
    return text;
}

std::string remedy_for(const std::string& why, ProviderKind kind) {
    const auto names = [&why](const char* part) { return why.find(part) != std::string::npos; };
    if (names("libcuda.so")) return "install the NVIDIA driver, which brings it";
    if (names("libnvinfer") || names("libnvonnxparser"))
        return "install the TensorRT that this onnxruntime is made for";
    if (names("cannot open shared object")) {
        return "install the CUDA and cuDNN that this onnxruntime is made for, where the loader finds them";
    }
    if (names("CUDA failure")) return "check that nvidia-smi lists the GPU";
    return std::string("run `edgeprune doctor`") + (kind == ProviderKind::tensorrt ? ", try the provider cuda" : "");
}

// Multiplies matrices, fused or not: what a GPU is for.
bool is_product(const std::string& op) {
    const std::array<const char*, 5> parts{"MatMul", "Gemm", "Conv", "Attention", "Einsum"};
    return std::any_of(parts.begin(), parts.end(),
                       [&op](const char* part) { return op.find(part) != std::string::npos; });
}

// {"MatMul": 2, "Shape": 1} -> "2 x MatMul, 1 x Shape".
std::string counted(const std::map<std::string, int64_t>& operators) {
    std::string text;
    for (const auto& [op, count] : operators) text += (text.empty() ? "" : ", ") + std::to_string(count) + " x " + op;
    return text;
}

using Operators = std::map<std::string, int64_t>;

// Provider -> operator -> nodes.
std::map<std::string, Operators> placement_of(const ort::Api& api, const ort::PlacementApi& placement,
                                              const ort::Session* session) {
    std::map<std::string, Operators> found;
    const ort::AssignedSubgraph* const* subgraphs = nullptr;
    size_t count = 0;
    check(api, placement.assigned_subgraphs(session, &subgraphs, &count));
    for (size_t i = 0; i < count; ++i) {
        const char* provider = nullptr;
        check(api, placement.provider_of(subgraphs[i], &provider));
        const ort::AssignedNode* const* nodes = nullptr;
        size_t node_count = 0;
        check(api, placement.nodes_of(subgraphs[i], &nodes, &node_count));
        for (size_t j = 0; j < node_count; ++j) {
            const char* op = nullptr;
            check(api, placement.operator_of(nodes[j], &op));
            ++found[provider][op];
        }
    }
    return found;
}

template <class Settings>
void append_with(const ort::Api& api, ort::SessionOptions* options, const std::map<std::string, std::string>& values,
                 ort::ProviderApi::Call<Settings**> create, ort::ProviderApi::Update<Settings> update,
                 ort::ProviderApi::Call<ort::SessionOptions*, const Settings*> append,
                 ort::ProviderApi::Release<Settings> release) {
    std::vector<const char*> keys, texts;
    for (const auto& [key, text] : values) {
        keys.push_back(key.c_str());
        texts.push_back(text.c_str());
    }
    Settings* raw = nullptr;
    check(api, create(&raw));
    const Owned<Settings> settings(raw, release);
    check(api, update(raw, keys.data(), texts.data(), keys.size()));
    check(api, append(options, raw));
}

std::string shape_list(const std::vector<InputRange>& ranges, Shape InputRange::* end) {
    std::string text;
    for (const InputRange& range : ranges) {
        std::string sizes;
        for (const int64_t size : range.*end) sizes += (sizes.empty() ? "" : "x") + std::to_string(size);
        text += (text.empty() ? "" : ",") + range.name + ":" + sizes;
    }
    return text;
}

}  // namespace

OrtProvider::OrtProvider(const OrtLibrary& library, ProviderChoice choice)
    : library_(library), choice_(std::move(choice)), memory_(nullptr, nullptr) {
    if (!has_device()) return;
    api_.emplace(library.table);
    require_compiled_in();
    if (library.placement_table == nullptr) {
        unusable("onnxruntime " + library.version + " cannot tell where it runs nodes; install 1.24 or newer");
    }
    placement_.emplace(library.placement_table);
    try {
        ort::MemoryInfo* memory = nullptr;
        check(library.api,
              api_->create_memory_info("Cuda", ort::kDeviceAllocator, choice_.device_id, ort::kDefaultMemory, &memory));
        memory_ = Owned<ort::MemoryInfo>(memory, api_->release_memory_info);
        identity(DType::float32, false);
        downloads_.emplace(DType::float32, identity(DType::float32, true));
    } catch (const Error& error) {
        if (error.status() != EP_ERROR_BACKEND) throw;
        const std::string why = reason_of(error.what());
        unusable("onnxruntime " + library.version + " (" + library.path + ") says: " + why + "; " +
                 remedy_for(why, choice_.kind));
    }
}

void OrtProvider::unusable(const std::string& why) const {
    throw Error(EP_ERROR_PROVIDER, std::string("the provider ") + provider_name(choice_.kind) +
                                       " cannot run here: " + why + ", or choose the provider cpu");
}

void OrtProvider::require_compiled_in() const {
    char** names = nullptr;
    int count = 0;
    check(library_.api, api_->available_providers(&names, &count));
    bool found = false;
    std::string known;
    for (int i = 0; i < count; ++i) {
        found = found || std::strcmp(names[i], name()) == 0;
        known += (i > 0 ? ", " : "") + std::string(names[i]);
    }
    check(library_.api, api_->release_available_providers(names, count));
    if (found) return;
    unusable("onnxruntime " + library_.version + " (" + library_.path + ") was built with " + known +
             " alone; install onnxruntime-gpu in its place, or point EDGEPRUNE_ORT_LIB at its library");
}

Owned<ort::Session> OrtProvider::identity(DType dtype, bool download) const {
    const ort::Api& api = library_.api;
    ort::SessionOptions* raw = nullptr;
    check(api, api.create_session_options(&raw));
    const Owned<ort::SessionOptions> options(raw, api.release_session_options);
    check(api, api.set_optimisation(raw, ort::kOptimiseNothing));
    check(api, api.set_log_severity(raw, ort::kLogFatal));  // it comes back as an error
    check(api, api.set_intra_op_threads(raw, 1));
    if (download) {
        append_cuda(raw);
    } else {
        append(raw, {});
    }
    const std::string model = identity_model(element_type_of(dtype));
    ort::Session* session = nullptr;
    check(api, api_->create_session_from_array(library_.env, model.data(), model.size(), raw, &session));
    return Owned<ort::Session>(session, api.release_session);
}

void OrtProvider::append_cuda(ort::SessionOptions* options) const {
    // TF32 would round the factors of float32 products to 10 bits, unasked.
    const Options values{{"device_id", std::to_string(choice_.device_id)}, {"use_tf32", "0"}};
    append_with(library_.api, options, values, api_->create_cuda_options, api_->update_cuda_options, api_->append_cuda,
                api_->release_cuda_options);
}

void OrtProvider::append(ort::SessionOptions* options, const std::vector<InputRange>& ranges) const {
    if (!has_device()) return;
    check(library_.api, library_.api.add_session_config(options, kRecordPlacement, "1"));
    if (choice_.kind == ProviderKind::tensorrt) {
        Options values{{"device_id", std::to_string(choice_.device_id)}};
        if (choice_.engine_fp16) values["trt_fp16_enable"] = "1";
        if (!choice_.engine_cache_dir.empty()) {
            values["trt_engine_cache_enable"] = "1";
            values["trt_engine_cache_path"] = choice_.engine_cache_dir;
        }
        if (!ranges.empty()) {
            values["trt_profile_min_shapes"] = shape_list(ranges, &InputRange::least);
            values["trt_profile_opt_shapes"] = shape_list(ranges, &InputRange::usual);
            values["trt_profile_max_shapes"] = shape_list(ranges, &InputRange::most);
        }
        append_with(library_.api, options, values, api_->create_tensorrt_options, api_->update_tensorrt_options,
                    api_->append_tensorrt, api_->release_tensorrt_options);
    }
    append_cuda(options);  // behind tensorrt for what it leaves; check_placement looks at it
}

std::map<std::string, int64_t> OrtProvider::check_placement(const ort::Session* session,
                                                            const std::string& path) const {
    Operators on_cpu, products;
    for (const auto& [provider, operators] : placement_of(library_.api, *placement_, session)) {
        for (const auto& [op, count] : operators) {
            if (provider != name() && is_product(op)) products[op + " on " + provider] += count;
            if (provider == onnxruntime_provider(ProviderKind::cpu)) on_cpu[op] += count;
        }
    }
    if (products.empty()) return on_cpu;
    throw Error(EP_ERROR_PROVIDER, path + ": onnxruntime does not compute it with the provider " +
                                       provider_name(choice_.kind) + ", but " + counted(products) +
                                       "; build a variant with `edgeprune build --target cuda`, or choose the "
                                       "provider cpu");
}

bool OrtProvider::is_on_device(const ort::Value* value) const {
    if (!has_device()) return false;
    const ort::MemoryInfo* memory = nullptr;
    check(library_.api, api_->tensor_memory(value, &memory));
    int32_t type = ort::kCpuDevice;
    api_->device_type(memory, &type);
    return type != ort::kCpuDevice;
}

Owned<ort::Value> OrtProvider::to_host(const ort::Value* value, DType dtype) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto found = downloads_.find(dtype);
    if (found == downloads_.end()) found = downloads_.emplace(dtype, identity(dtype, true)).first;
    // Outputs that are not bound come back in the machine's memory.
    const char *input = "x", *output = "y";
    ort::Value* result = nullptr;
    check(library_.api, library_.api.run(found->second.get(), nullptr, &input, &value, 1, &output, 1, &result));
    return Owned<ort::Value>(result, library_.api.release_value);
}

}  // namespace edgeprune
