// Driven by tests/runtime/test_providers.py: ONNXRUNTIME GRAPH, a graph of one input x and one output y, both (3)
// float32, y = x + x. Calls every slot of ort_provider_api.h in the real library: a run by binding, where nodes were
// placed, where a tensor lies, and the settings of providers, which a library without them refuses. Out: "held".
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "error.h"
#include "library_search.h"
#include "ort_provider.h"
#include "ort_tensor.h"

using namespace edgeprune;

namespace {

void expect(bool held, const char* what) {
    if (held) return;
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

struct Fixture {
    const OrtLibrary& library;
    const ort::Api& api = library.api;
    ort::ProviderApi provider{library.table};
    ort::PlacementApi placement{library.placement_table};
    ort::Allocator* allocator = nullptr;

    explicit Fixture(const OrtLibrary& opened) : library(opened) { check(api, api.default_allocator(&allocator)); }
};

Owned<ort::Session> open_session(const Fixture& f, const std::string& model) {
    ort::SessionOptions* raw = nullptr;
    check(f.api, f.api.create_session_options(&raw));
    const Owned<ort::SessionOptions> options(raw, f.api.release_session_options);
    check(f.api, f.api.add_session_config(raw, "session.record_ep_graph_assignment_info", "1"));
    ort::Session* session = nullptr;
    check(f.api, f.provider.create_session_from_array(f.library.env, model.data(), model.size(), raw, &session));
    return Owned<ort::Session>(session, f.api.release_session);
}

void check_placement(const Fixture& f, const ort::Session* session) {
    const ort::AssignedSubgraph* const* subgraphs = nullptr;
    size_t count = 0, nodes = 0;
    check(f.api, f.placement.assigned_subgraphs(session, &subgraphs, &count));
    for (size_t i = 0; i < count; ++i) {
        const char *provider = nullptr, *op = nullptr;
        check(f.api, f.placement.provider_of(subgraphs[i], &provider));
        expect(std::strcmp(provider, "CPUExecutionProvider") == 0, "another provider");
        const ort::AssignedNode* const* found = nullptr;
        size_t node_count = 0;
        check(f.api, f.placement.nodes_of(subgraphs[i], &found, &node_count));
        for (size_t j = 0; j < node_count; ++j) {
            check(f.api, f.placement.operator_of(found[j], &op));
            expect(std::strcmp(op, "Add") == 0, "another operator");
            ++nodes;
        }
    }
    expect(nodes == 1, "not one node");
}

void check_binding(const Fixture& f, ort::Session* session) {
    const int64_t shape[] = {3};
    ort::Value* raw_value = nullptr;
    check(f.api, f.api.create_tensor(f.allocator, shape, 1, ort::kFloat32, &raw_value));
    const Owned<ort::Value> value(raw_value, f.api.release_value);
    void* data = nullptr;
    check(f.api, f.api.tensor_data(raw_value, &data));
    const float numbers[] = {1, 2, 3};
    std::memcpy(data, numbers, sizeof numbers);

    ort::MemoryInfo* raw_memory = nullptr;
    check(f.api, f.provider.create_memory_info("Cpu", ort::kDeviceAllocator, 0, ort::kDefaultMemory, &raw_memory));
    const Owned<ort::MemoryInfo> memory(raw_memory, f.provider.release_memory_info);
    ort::IoBinding* raw = nullptr;
    check(f.api, f.provider.create_binding(session, &raw));
    const Owned<ort::IoBinding> binding(raw, f.provider.release_binding);
    check(f.api, f.provider.bind_input(raw, "x", raw_value));
    check(f.api, f.provider.bind_output_to_device(raw, "y", raw_memory));
    check(f.api, f.provider.run_with_binding(session, nullptr, raw));
    ort::Value** results = nullptr;
    size_t count = 0;
    check(f.api, f.provider.bound_outputs(raw, f.allocator, &results, &count));
    expect(count == 1, "not one output");
    const ort::MemoryInfo* where = nullptr;
    check(f.api, f.provider.tensor_memory(results[0], &where));
    int32_t type = -1;
    f.provider.device_type(where, &type);
    expect(type == ort::kCpuDevice, "the output is not in the machine's memory");
    OrtTensor tensor(f.api, Owned<ort::Value>(results[0], f.api.release_value), "y");
    check(f.api, f.api.allocator_free(f.allocator, results));
    const auto* sums = static_cast<const float*>(tensor.data());
    expect(sums[0] == 2 && sums[1] == 4 && sums[2] == 6, "wrong numbers");
}

void check_settings(const Fixture& f) {
    ort::CudaOptions* cuda = nullptr;
    if (ort::Status* status = f.provider.create_cuda_options(&cuda)) {
        f.api.release_status(status);
    } else {
        const char *key = "device_id", *value = "0";
        check(f.api, f.provider.update_cuda_options(cuda, &key, &value, 1));
        f.provider.release_cuda_options(cuda);
    }
    ort::TensorRtOptions* tensorrt = nullptr;
    if (ort::Status* status = f.provider.create_tensorrt_options(&tensorrt)) {
        f.api.release_status(status);
    } else {
        f.provider.release_tensorrt_options(tensorrt);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    std::ifstream file(argv[2], std::ios::binary);
    const std::string model{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const Fixture fixture(open_onnxruntime(argv[1], *read_version("1.24")));
    const Owned<ort::Session> session = open_session(fixture, model);
    check_placement(fixture, session.get());
    check_binding(fixture, session.get());
    check_settings(fixture);
    try {
        const OrtProvider cuda(fixture.library, {ProviderKind::cuda, 0, "", false});
        expect(cuda.has_device(), "a provider without a device");
    } catch (const Error& error) {
        expect(error.status() == EP_ERROR_PROVIDER, error.what());
    }
    std::puts("held");
}
