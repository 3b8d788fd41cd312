// A test double of TensorRT's library, NOT TensorRT: an "engine" names an ONNX file, which onnxruntime runs on the CPU,
// and the shapes of its profiles. What it proves is that the back end reads the engine's tensors and profiles, sets
// every shape and address, and moves the right numbers; nothing about kernels, streams or a GPU.
#include <NvInferRuntime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "backend_ort.h"
#include "error.h"
#include "library_search.h"
#include "memory.h"
#include "stubs.h"  // written by the test: every function of the interface, which ends the program

namespace edgeprune::doubles {
namespace {

using nvinfer1::Dims;
using nvinfer1::OptProfileSelector;

nvinfer1::ILogger* logger = nullptr;

// A mistake of the back end: said where TensorRT says it, and the call fails.
bool refuse(const std::string& why) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, ("double: " + why).c_str());
    return false;
}

Dims dims_of(const Shape& shape) {
    Dims dims{};
    dims.nbDims = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), dims.d);
    return dims;
}

Shape read_shape(const std::string& text) {
    Shape shape;
    std::istringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) shape.push_back(std::stoll(part));
    return shape;
}

struct Bounds {
    Shape least, most;
};
using Profile = std::map<std::string, Bounds>;

class Engine;

class Context final : public nvinfer1::IExecutionContext, private nvinfer1::apiv::StubExecutionContext {
public:
    explicit Context(const Engine& engine) : engine_(engine) { mImpl = this; }
    bool setOptimizationProfileAsync(int32_t index, cudaStream_t) noexcept override {
        profile_ = index;
        return true;
    }
    void setDeviceMemoryV2(void* memory, int64_t size) noexcept override {
        scratch_ = reinterpret_cast<uint64_t>(memory);
        scratch_bytes_ = size;
    }
    bool setInputShape(char const* name, Dims const& dims) noexcept override;
    bool setInputTensorAddress(char const* name, void const* data) noexcept override {
        addresses_[name] = reinterpret_cast<uint64_t>(data);
        return true;
    }
    bool setTensorAddress(char const* name, void* data) noexcept override {
        addresses_[name] = reinterpret_cast<uint64_t>(data);
        return true;
    }
    Dims getTensorShape(char const* name) const noexcept override;
    bool enqueueV3(cudaStream_t) noexcept override;
    nvinfer1::IExecutionContext* getPImpl() noexcept override { return this; }

private:
    std::map<std::string, TensorPtr> results() const;

    const Engine& engine_;
    int32_t profile_ = -1;
    uint64_t scratch_ = 0;
    int64_t scratch_bytes_ = 0;
    std::map<std::string, Shape> shapes_;
    std::map<std::string, uint64_t> addresses_;
};

class Engine final : public nvinfer1::ICudaEngine, private nvinfer1::apiv::StubCudaEngine {
public:
    Engine(std::unique_ptr<Backend> ort, const std::string& path, std::vector<Profile> given)
        : backend(std::move(ort)), graph(backend->open_graph(path, {})), profiles(std::move(given)) {
        mImpl = this;
    }
    nvinfer1::ICudaEngine* getPImpl() noexcept override { return this; }
    int32_t getNbIOTensors() const noexcept override {
        return static_cast<int32_t>(graph->inputs().size() + graph->outputs().size());
    }
    char const* getIOTensorName(int32_t index) const noexcept override {
        const auto i = static_cast<size_t>(index), inputs = graph->inputs().size();
        return (i < inputs ? graph->inputs()[i] : graph->outputs()[i - inputs]).name.c_str();
    }
    nvinfer1::TensorIOMode getTensorIOMode(char const* name) const noexcept override {
        for (const Port& port : graph->inputs()) {
            if (port.name == name) return nvinfer1::TensorIOMode::kINPUT;
        }
        return nvinfer1::TensorIOMode::kOUTPUT;
    }
    nvinfer1::TensorLocation getTensorLocation(char const*) const noexcept override {
        return nvinfer1::TensorLocation::kDEVICE;
    }
    Dims getTensorShape(char const* name) const noexcept override { return dims_of(port(name).shape); }
    nvinfer1::DataType getTensorDataType(char const* name) const noexcept override {
        switch (port(name).dtype) {
            case DType::float32:
                return nvinfer1::DataType::kFLOAT;
            case DType::float16:
                return nvinfer1::DataType::kHALF;
            case DType::int64:
                return nvinfer1::DataType::kINT64;
            default:
                return nvinfer1::DataType::kINT32;
        }
    }
    int32_t getNbOptimizationProfiles() const noexcept override { return static_cast<int32_t>(profiles.size()); }
    Dims getProfileShape(char const* name, int32_t index, OptProfileSelector which) const noexcept override {
        const Bounds& bounds = profiles[static_cast<size_t>(index)].at(name);
        return dims_of(which == OptProfileSelector::kMIN ? bounds.least : bounds.most);
    }
    int64_t getDeviceMemorySizeForProfileV2(int32_t index) const noexcept override { return 4096 * (index + 1); }
    nvinfer1::IExecutionContext* createExecutionContext(
        nvinfer1::ExecutionContextAllocationStrategy strategy) noexcept override {
        if (strategy == nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED) return new Context(*this);
        refuse("only memory of the caller");
        return nullptr;
    }
    const Port& port(const std::string& name) const {
        for (const std::vector<Port>* ports : {&graph->inputs(), &graph->outputs()}) {
            for (const Port& one : *ports) {
                if (one.name == name) return one;
            }
        }
        std::abort();
    }

    std::unique_ptr<Backend> backend;
    std::unique_ptr<Graph> graph;
    std::vector<Profile> profiles;
};

bool Context::setInputShape(char const* name, Dims const& dims) noexcept {
    if (profile_ < 0) return refuse("a shape before the profile");
    const Shape shape(dims.d, dims.d + dims.nbDims);
    const Bounds& bounds = engine_.profiles[static_cast<size_t>(profile_)].at(name);
    if (shape.size() != bounds.least.size()) return refuse("rank of " + std::string(name));
    for (size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] < bounds.least[i] || shape[i] > bounds.most[i]) return refuse("profile and " + std::string(name));
    }
    shapes_[name] = shape;
    return true;
}

// Of the whole graph, from what lies at the inputs' addresses.
std::map<std::string, TensorPtr> Context::results() const {
    std::vector<NamedTensor> inputs;
    for (const Port& port : engine_.graph->inputs()) {
        TensorPtr tensor = engine_.backend->new_tensor(port.dtype, shapes_.at(port.name));
        if (!on_device(addresses_.at(port.name))) throw Error(EP_ERROR_INTERNAL, port.name + " is not on the device");
        if (tensor->bytes() > 0) {
            std::memcpy(tensor->mutable_data(), real(addresses_.at(port.name)), tensor->bytes());
        }
        inputs.push_back({port.name, tensor});
    }
    std::vector<std::string> names;
    for (const Port& port : engine_.graph->outputs()) names.push_back(port.name);
    Abort nobody;
    RunContext run{nobody};
    const std::vector<TensorPtr> outputs = engine_.graph->run(inputs, names, run);
    std::map<std::string, TensorPtr> found;
    for (size_t i = 0; i < names.size(); ++i) found[names[i]] = outputs[i];
    return found;
}

// TensorRT infers a shape from the shapes; onnxruntime has to run for it.
Dims Context::getTensorShape(char const* name) const noexcept {
    try {
        return dims_of(results().at(name)->shape());
    } catch (const std::exception& error) {
        refuse(error.what());
        return dims_of({-1});
    }
}

bool Context::enqueueV3(cudaStream_t) noexcept {
    try {
        const int64_t need = engine_.getDeviceMemorySizeForProfileV2(profile_);
        if (!on_device(scratch_) || scratch_bytes_ < need) return refuse("too little scratch memory");
        const auto made = results();
        std::memset(real(scratch_), 0x33, static_cast<size_t>(need));  // whatever is kept there is lost
        for (const auto& [name, tensor] : made) {
            const uint64_t address = addresses_.at(name);
            if (!on_device(address)) return refuse(name + " is not on the device");
            std::memcpy(real(address), tensor->data(), tensor->bytes());
        }
        return true;
    } catch (const std::exception& error) {
        return refuse(error.what());
    }
}

class Runtime final : public nvinfer1::IRuntime, private nvinfer1::apiv::StubRuntime {
public:
    Runtime() { mImpl = this; }
    nvinfer1::IRuntime* getPImpl() noexcept override { return this; }
    // "double", the ONNX file, then per profile the word and a line per input: name, least, most.
    nvinfer1::ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
        std::istringstream text(std::string(static_cast<const char*>(blob), size));
        std::string word, path, least, most;
        if (!(text >> word >> path) || word != "double") {
            refuse("this is no engine");
            return nullptr;
        }
        std::vector<Profile> profiles;
        while (text >> word) {
            if (word == "profile") {
                profiles.emplace_back();
            } else if (text >> least >> most) {
                profiles.back()[word] = {read_shape(least), read_shape(most)};
            }
        }
        try {
            return new Engine(open_ort_backend("", *read_version("1.17")), path, std::move(profiles));
        } catch (const std::exception& error) {
            refuse(error.what());
            return nullptr;
        }
    }
};

}  // namespace
}  // namespace edgeprune::doubles

extern "C" {

int32_t getInferLibMajorVersion() noexcept {
    return NV_TENSORRT_MAJOR;
}
int32_t getInferLibMinorVersion() noexcept {
    return NV_TENSORRT_MINOR;
}
int32_t getInferLibPatchVersion() noexcept {
    return NV_TENSORRT_PATCH;
}
int32_t getInferLibBuildVersion() noexcept {
    return NV_TENSORRT_BUILD;
}
int32_t getInferLibVersion() noexcept {
    return NV_TENSORRT_VERSION;
}
void* createInferRuntime_INTERNAL(void* log, int32_t version) noexcept {
    edgeprune::doubles::logger = static_cast<nvinfer1::ILogger*>(log);
    if (version == NV_TENSORRT_VERSION) return static_cast<nvinfer1::IRuntime*>(new edgeprune::doubles::Runtime());
    edgeprune::doubles::refuse("another version");
    return nullptr;
}
}
