#include "trt_graph.h"

#include <algorithm>
#include <utility>

#include "../error.h"

namespace edgeprune {
namespace {

DType dtype_of(nvinfer1::DataType type, const std::string& file, const std::string& name) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT:
            return DType::float32;
        case nvinfer1::DataType::kHALF:
            return DType::float16;
        case nvinfer1::DataType::kINT64:
            return DType::int64;
        case nvinfer1::DataType::kINT32:
            return DType::int32;
        default:
            throw Error(EP_ERROR_BUNDLE, file + ": \"" + name + "\" has TensorRT's element type " +
                                             std::to_string(static_cast<int>(type)) +
                                             ", which this library does not bind");
    }
}

Shape shape_of(const nvinfer1::Dims& dims) {
    return dims.nbDims < 0 ? Shape{} : Shape(dims.d, dims.d + dims.nbDims);
}

nvinfer1::Dims dims_of(const Shape& shape) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<int32_t>(std::min<size_t>(shape.size(), nvinfer1::Dims::MAX_DIMS));
    std::copy_n(shape.begin(), dims.nbDims, dims.d);
    return dims;
}

DeviceTensor& on_device(const TensorPtr& tensor) {
    return static_cast<DeviceTensor&>(*tensor);
}

}  // namespace

bool TrtProfile::serves(const std::string& input, const Shape& shape) const {
    const auto known = inputs.find(input);
    if (known == inputs.end()) return false;
    const auto& [least, most] = known->second;
    if (shape.size() != least.size()) return false;
    for (size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] < least[i] || shape[i] > most[i]) return false;
    }
    return true;
}

TrtGraph::TrtGraph(std::shared_ptr<TrtLibrary> library, std::shared_ptr<Device> device,
                   std::unique_ptr<nvinfer1::ICudaEngine> engine, std::string name)
    : library_(std::move(library)), device_(std::move(device)), engine_(std::move(engine)), name_(std::move(name)) {
    for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
        const char* tensor = engine_->getIOTensorName(i);
        const bool input = engine_->getTensorIOMode(tensor) == nvinfer1::TensorIOMode::kINPUT;
        (input ? inputs_ : outputs_).push_back(port(tensor));
    }
    for (int32_t i = 0; i < engine_->getNbOptimizationProfiles(); ++i) profiles_.push_back(profile(i));
    contexts_.resize(profiles_.size());
}

Port TrtGraph::port(const char* name) const {
    return {name, dtype_of(engine_->getTensorDataType(name), name_, name), shape_of(engine_->getTensorShape(name))};
}

TrtProfile TrtGraph::profile(int index) const {
    TrtProfile found;
    for (const Port& port : inputs_) {
        const auto bound = [&](nvinfer1::OptProfileSelector which) {
            return shape_of(engine_->getProfileShape(port.name.c_str(), index, which));
        };
        TrtProfile::Bounds bounds{bound(nvinfer1::OptProfileSelector::kMIN), bound(nvinfer1::OptProfileSelector::kMAX)};
        double elements = 1;
        for (const int64_t size : bounds.most) elements *= static_cast<double>(size);
        found.largest += elements;
        found.inputs.emplace(port.name, std::move(bounds));
    }
    return found;
}

size_t TrtGraph::choose(const std::vector<NamedTensor>& inputs) const {
    size_t best = profiles_.size();
    for (size_t i = 0; i < profiles_.size(); ++i) {
        const auto serves = [&](const NamedTensor& input) {
            return profiles_[i].serves(input.name, input.tensor->shape());
        };
        if (!std::all_of(inputs.begin(), inputs.end(), serves)) continue;
        if (best == profiles_.size() || profiles_[i].largest < profiles_[best].largest) best = i;
    }
    if (best < profiles_.size()) return best;
    std::string shapes;
    for (const NamedTensor& input : inputs) {
        shapes += (shapes.empty() ? "" : ", ") + input.name + " " + shape_text(input.tensor->shape());
    }
    throw Error(EP_ERROR_BACKEND, name_ + ": no optimization profile of the engine serves " + shapes +
                                      "; ask within the context and keep range that the variant was built for");
}

void TrtGraph::require(bool done, const std::string& what) const {
    if (!done) library_->fail(name_, what);
}

nvinfer1::IExecutionContext& TrtGraph::context_for(size_t profile) const {
    Context& context = contexts_[profile];
    const auto index = static_cast<int32_t>(profile);
    if (!context) {
        Context made(engine_->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
        require(made != nullptr, "makes no execution context");
        require(made->setOptimizationProfileAsync(index, device_->stream()), "does not take its own profile");
        device_->wait();
        context = std::move(made);
    }
    const int64_t bytes = engine_->getDeviceMemorySizeForProfileV2(index);
    if (bytes > 0) {
        context->setDeviceMemoryV2(reinterpret_cast<void*>(device_->scratch(static_cast<size_t>(bytes))), bytes);
    }
    return *context;
}

void TrtGraph::set_input(nvinfer1::IExecutionContext& context, const NamedTensor& input) const {
    const char* name = input.name.c_str();
    require(context.setInputShape(name, dims_of(input.tensor->shape())),
            "does not take " + input.name + " of shape " + shape_text(input.tensor->shape()));
    // An input whose numbers decide shapes is read by the host.
    const bool host = engine_->getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
    const void* address =
        host ? input.tensor->data() : reinterpret_cast<const void*>(on_device(input.tensor).to_read());
    require(context.setInputTensorAddress(name, address), "does not take the memory of " + input.name);
}

TensorPtr TrtGraph::set_output(nvinfer1::IExecutionContext& context, const std::string& name) const {
    const Shape shape = shape_of(context.getTensorShape(name.c_str()));
    const auto unknown = std::any_of(shape.begin(), shape.end(), [](int64_t size) { return size < 0; });
    require(!unknown, "cannot tell the shape of " + name + " before the run");
    const auto port = std::find_if(outputs_.begin(), outputs_.end(), [&](const Port& p) { return p.name == name; });
    if (port == outputs_.end()) throw Error(EP_ERROR_INTERNAL, name_ + " has no output " + name);
    auto tensor = std::make_shared<DeviceTensor>(device_, port->dtype, shape);
    const bool host = engine_->getTensorLocation(name.c_str()) == nvinfer1::TensorLocation::kHOST;
    void* address = host ? tensor->mutable_data() : reinterpret_cast<void*>(tensor->to_write());
    require(context.setTensorAddress(name.c_str(), address), "does not take the memory of " + name);
    return tensor;
}

std::vector<TensorPtr> TrtGraph::enqueue(const std::vector<NamedTensor>& inputs,
                                         const std::vector<std::string>& output_names) const {
    device_->next_run();
    nvinfer1::IExecutionContext& context = context_for(choose(inputs));
    for (const NamedTensor& input : inputs) set_input(context, input);
    std::vector<TensorPtr> outputs;
    for (const std::string& name : output_names) outputs.push_back(set_output(context, name));
    require(context.enqueueV3(device_->stream()), "cannot run the engine");
    device_->wait();
    return outputs;
}

std::vector<TensorPtr> TrtGraph::run(const std::vector<NamedTensor>& inputs,
                                     const std::vector<std::string>& output_names, RunContext& context) const {
    const std::lock_guard<std::mutex> lock(device_->running());
    const cuda::PrimaryContext::Use use(device_->context());
    context.abort.check();
    const Clock::time_point start = Clock::now();
    std::vector<TensorPtr> outputs = enqueue(inputs, output_names);
    context.graph_ms += elapsed_ms(start);
    context.abort.check();
    return outputs;
}

}  // namespace edgeprune
