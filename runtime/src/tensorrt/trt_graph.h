// One engine: its tensors, its optimization profiles, and runs of it.
#pragma once

#include <NvInferRuntime.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../backend.h"
#include "device_memory.h"
#include "trt_library.h"

namespace edgeprune {

// The shapes that a profile of an engine serves: bounds per input.
struct TrtProfile {
    struct Bounds {
        Shape least, most;
    };
    std::map<std::string, Bounds> inputs;
    double largest = 0;  // elements of all inputs at their largest

    bool serves(const std::string& input, const Shape& shape) const;
};

// A context per profile, made on its first use: changing the profile of one costs a rebuild of its inner state at every
// question. All contexts share the device's scratch memory, since runs follow one another.
class TrtGraph final : public Graph {
public:
    // name: of the engine's file, for errors. Throws Error(EP_ERROR_BUNDLE): a tensor of a type that is not bound.
    TrtGraph(std::shared_ptr<TrtLibrary> library, std::shared_ptr<Device> device,
             std::unique_ptr<nvinfer1::ICudaEngine> engine, std::string name);

    const std::vector<Port>& inputs() const override { return inputs_; }
    const std::vector<Port>& outputs() const override { return outputs_; }
    // A request to abort or a deadline is seen before and behind the run, not within it.
    std::vector<TensorPtr> run(const std::vector<NamedTensor>& inputs, const std::vector<std::string>& output_names,
                               RunContext& context) const override;

private:
    using Context = std::unique_ptr<nvinfer1::IExecutionContext>;

    Port port(const char* name) const;
    TrtProfile profile(int index) const;
    // Of the profiles that serve these inputs the narrowest, which is tuned for the fewest shapes.
    size_t choose(const std::vector<NamedTensor>& inputs) const;
    nvinfer1::IExecutionContext& context_for(size_t profile) const;
    void set_input(nvinfer1::IExecutionContext& context, const NamedTensor& input) const;
    TensorPtr set_output(nvinfer1::IExecutionContext& context, const std::string& name) const;
    std::vector<TensorPtr> enqueue(const std::vector<NamedTensor>& inputs,
                                   const std::vector<std::string>& output_names) const;
    void require(bool done, const std::string& what) const;

    std::shared_ptr<TrtLibrary> library_;
    std::shared_ptr<Device> device_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::string name_;
    std::vector<Port> inputs_, outputs_;
    std::vector<TrtProfile> profiles_;
    mutable std::vector<Context> contexts_;  // per profile; null: not made yet
};

}  // namespace edgeprune
