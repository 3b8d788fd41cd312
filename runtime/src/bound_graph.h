// A loaded graph whose tensors are addressed by role.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "manifest.h"

namespace edgeprune {

using RoleTensors = std::map<std::string, TensorPtr>;

class BoundGraph {
public:
    // Compares the manifest's tensors with the loaded graph's: names, element types, ranks and fixed dimensions.
    // Throws Error(EP_ERROR_BUNDLE).
    BoundGraph(const GraphSpec& spec, std::unique_ptr<Graph> graph);

    const GraphSpec& spec() const { return spec_; }
    std::map<std::string, int64_t> cpu_operators() const { return graph_->cpu_operators(); }
    bool has_input(const std::string& role) const;
    // Throws Error(EP_ERROR_BUNDLE) when the graph has no such tensor.
    const TensorSpec& input(const std::string& role) const;
    const TensorSpec& output(const std::string& role) const;
    // Every input of the graph by role; roles that the graph does not have are left out. All outputs by role, those of
    // `memory` in the tensors that it holds.
    RoleTensors run(const RoleTensors& inputs, RunContext& context, const RoleTensors& memory = {}) const;

private:
    GraphSpec spec_;
    std::unique_ptr<Graph> graph_;
    std::vector<std::string> output_names_;
};

// The roles a graph of this stage must have, with their element types and ranks. `method`: of a vision graph.
// Throws Error(EP_ERROR_BUNDLE) for a missing or unknown role.
void check_roles(const GraphSpec& spec, const MethodSpec* method);

// What `select` reads beside keep_slots and the text must come out of `encode`, of the same type and shape.
// Throws Error(EP_ERROR_BUNDLE).
void check_link(const GraphSpec& encode, const GraphSpec& select);

}  // namespace edgeprune
