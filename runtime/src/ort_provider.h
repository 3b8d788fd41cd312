// An execution provider of a loaded onnxruntime: whether it works here, its options, where it put a graph's nodes, and
// memory on its device.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "execution_provider.h"
#include "library_search.h"
#include "ort_tensor.h"

namespace edgeprune {

class OrtProvider final : public Download {
public:
    // Tries it out on a graph of one node. Throws Error(EP_ERROR_PROVIDER), one sentence with the remedy: this
    // onnxruntime has not got it or cannot tell where nodes run, a library of it is missing, or there is no GPU.
    OrtProvider(const OrtLibrary& library, ProviderChoice choice);

    // The other functions are for these alone.
    bool has_device() const { return choice_.kind != ProviderKind::cpu; }
    const char* name() const { return onnxruntime_provider(choice_.kind); }

    // `ranges`: of the inputs of the graph, for tensorrt.
    void append(ort::SessionOptions* options, const std::vector<InputRange>& ranges) const;
    // Operator -> how many of its nodes onnxruntime put on the CPU. Throws Error(EP_ERROR_PROVIDER) when it put a
    // product of matrices on another provider; `path`: of the graph. It judges by what is elsewhere, because
    // onnxruntime does not list every node of a provider that rearranges the graph.
    std::map<std::string, int64_t> check_placement(const ort::Session* session, const std::string& path) const;

    const ort::ProviderApi& api() const { return *api_; }
    const ort::MemoryInfo* device_memory() const { return memory_.get(); }
    bool is_on_device(const ort::Value* value) const override;
    Owned<ort::Value> to_host(const ort::Value* value, DType dtype) const override;

private:
    using Options = std::map<std::string, std::string>;
    void append_cuda(ort::SessionOptions* options) const;
    [[noreturn]] void unusable(const std::string& why) const;
    void require_compiled_in() const;
    // A session of one node that hands its input on.
    Owned<ort::Session> identity(DType dtype, bool download) const;

    const OrtLibrary& library_;
    const ProviderChoice choice_;
    std::optional<ort::ProviderApi> api_;
    std::optional<ort::PlacementApi> placement_;
    Owned<ort::MemoryInfo> memory_;
    mutable std::mutex mutex_;
    mutable std::map<DType, Owned<ort::Session>> downloads_;
};

}  // namespace edgeprune
