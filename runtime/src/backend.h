// What the rest of the library knows of an inference engine: graphs with named tensors in and out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "run_context.h"

namespace edgeprune {

enum class DType { float32, float16, int64, int32 };

size_t dtype_bytes(DType dtype);
const char* dtype_name(DType dtype);

using Shape = std::vector<int64_t>;

// Number of elements; a free dimension (-1) must not occur.
int64_t element_count(const Shape& shape);
// "(1, 29, 576)"; a free dimension is written "?".
std::string shape_text(const Shape& shape);

// A row-major tensor that the backend owns. Immutable once it is an output or has been given to a run.
class Tensor {
public:
    virtual ~Tensor() = default;
    virtual DType dtype() const = 0;
    virtual const Shape& shape() const = 0;
    virtual const void* data() const = 0;
    virtual void* mutable_data() = 0;

    size_t bytes() const { return static_cast<size_t>(element_count(shape())) * dtype_bytes(dtype()); }
};
using TensorPtr = std::shared_ptr<Tensor>;

// An input or output of a graph as the engine reports it; -1: a free dimension.
struct Port {
    std::string name;
    DType dtype;
    Shape shape;
};

struct NamedTensor {
    std::string name;
    TensorPtr tensor;
};

// A loaded graph. run() may be called from several threads at once.
class Graph {
public:
    virtual ~Graph() = default;
    virtual const std::vector<Port>& inputs() const = 0;
    virtual const std::vector<Port>& outputs() const = 0;
    // Outputs in the order of `output_names`. Throws Error: EP_ERROR_BACKEND with the engine's own text, or the status
    // of a request to its abort. Adds to `context` how long the engine took.
    virtual std::vector<TensorPtr> run(const std::vector<NamedTensor>& inputs,
                                       const std::vector<std::string>& output_names, RunContext& context) const = 0;
    // The same with memory for the outputs, in their order; null: the engine's own. An output may be given the tensor
    // of an input, which the graph then overwrites; results hold the very tensors given. Throws
    // Error(EP_ERROR_UNSUPPORTED) where the engine cannot.
    virtual std::vector<TensorPtr> run_into(const std::vector<NamedTensor>& inputs,
                                            const std::vector<std::string>& output_names,
                                            const std::vector<TensorPtr>& memory, RunContext& context) const;
    // Operator -> how many of its nodes run on the CPU although another provider was asked for.
    virtual std::map<std::string, int64_t> cpu_operators() const { return {}; }
};

// How a graph runs its threads.
struct Threading {
    int32_t threads = 0;     // inside one run, the calling thread included; 0: the engine's own choice
    std::vector<int> cores;  // the n-th thread's core; the first is the caller's and stays the caller's business
    bool spin = true;        // idle threads wait busily for a short time
};

// Shapes that an input may come in; the engine is fastest for the usual one.
struct InputRange {
    std::string name;
    Shape least, usual, most;
};

struct GraphOptions {
    Threading threading;
    bool map_weights = false;    // no repacked copies of the weights: the files serve as they lie in memory
    std::string profile_prefix;  // "", or how the path of the trace begins that is written when the graph is freed
    std::vector<std::string> passed_on;  // outputs that go into other runs and are seldom read: may stay on a device
    std::vector<InputRange> ranges;      // of the inputs with free dimensions, for engines that want to know
};

// An inference engine with one execution provider. Thread-safe.
class Backend {
public:
    virtual ~Backend() = default;
    virtual std::string provider() const = 0;
    virtual std::string version() const = 0;
    // Path of the engine's shared library.
    virtual std::string library() const = 0;
    virtual std::unique_ptr<Graph> open_graph(const std::string& path, const GraphOptions& options) const = 0;
    // Not initialised. Dimensions may be 0.
    virtual TensorPtr new_tensor(DType dtype, const Shape& shape) const = 0;
    // The memory of `whole`, a tensor of this backend, from its beginning on, as a tensor of a shape that takes no more
    // of it. It keeps that memory alive.
    virtual TensorPtr view(const TensorPtr& whole, const Shape& shape) const = 0;
};

// The float32 values of a float32 or float16 tensor.
std::vector<float> to_floats(const Tensor& tensor);
// A tensor of `dtype` (float32 or float16) with these values.
TensorPtr from_floats(const Backend& backend, DType dtype, const Shape& shape, const float* values);

}  // namespace edgeprune
