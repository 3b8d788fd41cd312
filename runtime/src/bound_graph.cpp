#include "bound_graph.h"

#include <algorithm>
#include <set>

#include "error.h"

namespace edgeprune {
namespace {

[[noreturn]] void fail(const GraphSpec& spec, const std::string& what) {
    throw Error(EP_ERROR_BUNDLE, spec.file + ": " + what + "; export the bundle again");
}

const TensorSpec* find_role(const std::vector<TensorSpec>& tensors, const std::string& role) {
    const auto found =
        std::find_if(tensors.begin(), tensors.end(), [&role](const TensorSpec& tensor) { return tensor.role == role; });
    return found == tensors.end() ? nullptr : &*found;
}

const Port* find_port(const std::vector<Port>& ports, const std::string& name) {
    const auto found =
        std::find_if(ports.begin(), ports.end(), [&name](const Port& port) { return port.name == name; });
    return found == ports.end() ? nullptr : &*found;
}

// A dimension that the engine cannot state contradicts nothing. An input that the manifest calls free must be free; an
// output may come out fixed, and its shape is looked at after every run.
bool same_shape(const Shape& stated, const Shape& real, bool input) {
    return std::equal(stated.begin(), stated.end(), real.begin(), real.end(),
                      [input](int64_t a, int64_t b) { return b < 0 || a == b || (a < 0 && !input); });
}

void compare(const GraphSpec& spec, const TensorSpec& stated, const std::vector<Port>& ports, bool input) {
    const Port* port = find_port(ports, stated.name);
    if (port == nullptr) fail(spec, "the graph has no tensor \"" + stated.name + "\", which the manifest lists");
    if (port->dtype != stated.dtype) {
        fail(spec, "\"" + stated.name + "\" is " + dtype_name(port->dtype) + " in the graph, but " +
                       dtype_name(stated.dtype) + " in the manifest");
    }
    if (!same_shape(stated.shape, port->shape, input)) {
        fail(spec, "\"" + stated.name + "\" is " + shape_text(port->shape) + " in the graph, but " +
                       shape_text(stated.shape) + " in the manifest");
    }
}

enum Kind { kFloats, kFloat32, kIds };

bool is_kind(DType dtype, Kind kind) {
    if (kind == kIds) return dtype == DType::int64;
    return dtype == DType::float32 || (kind == kFloats && dtype == DType::float16);
}

struct Role {
    std::string name;
    Kind kind;
    size_t rank;
    bool required = true;
};

struct Roles {
    std::vector<Role> inputs, outputs;
};

Roles vision_roles(bool dynamic_keep) {
    Roles roles{{{"pixel_values", kFloat32, 4}, {"pad_mask", kFloat32, 2, false}},
                {{"visual_embeds", kFloats, 3}, {"keep_idx", kIds, 2}, {"scores", kFloats, 2, false}}};
    if (dynamic_keep) roles.inputs.push_back({"keep_slots", kFloat32, 1});
    return roles;
}

Roles decoder_roles(int64_t layers) {
    Roles roles{{{"inputs_embeds", kFloats, 3}, {"position_ids", kIds, 2, false}, {"attention_mask", kIds, 2, false}},
                {{"logits", kFloats, 3}}};
    for (int64_t layer = 0; layer < layers; ++layer) {
        for (const char* name : {"key.", "value."}) {
            roles.inputs.push_back({"past_" + (name + std::to_string(layer)), kFloats, 4});
            roles.outputs.push_back({"present_" + (name + std::to_string(layer)), kFloats, 4});
        }
    }
    return roles;
}

bool is_signal(const std::string& role) {
    return role.rfind("signal.", 0) == 0;
}

// Every signal is a tensor of whatever rank its kind has.
void add_signals(const std::vector<TensorSpec>& tensors, std::vector<Role>& roles) {
    for (const TensorSpec& tensor : tensors) {
        if (is_signal(tensor.role)) roles.push_back({tensor.role, kFloats, tensor.shape.size()});
    }
}

Roles encode_roles(const GraphSpec& spec) {
    Roles roles{{{"pixel_values", kFloat32, 4}}, {{"tokens", kFloats, 3}, {"scores", kFloat32, 2, false}}};
    add_signals(spec.outputs, roles.outputs);
    return roles;
}

Roles select_roles(const GraphSpec& spec, const MethodSpec& method) {
    Roles roles{{{"tokens", kFloats, 3}, {"scores", kFloat32, 2, false}, {"pad_mask", kFloat32, 2, false}},
                {{"visual_embeds", kFloats, 3}, {"keep_idx", kIds, 2}, {"scores", kFloat32, 2, false}}};
    add_signals(spec.inputs, roles.inputs);
    if (method.dynamic_keep) roles.inputs.push_back({"keep_slots", kFloat32, 1});
    if (method.text) {
        roles.inputs.push_back({"text_embeds", kFloat32, 3});
        roles.inputs.push_back({"text_mask", kFloat32, 2});
    }
    return roles;
}

Roles roles_of(const GraphSpec& spec, const MethodSpec* method) {
    if (method != nullptr) {
        if (spec.stage == "encode") return encode_roles(spec);
        if (spec.stage == "select") return select_roles(spec, *method);
        return vision_roles(method->dynamic_keep);
    }
    if (spec.stage == "text") return {{{"input_ids", kIds, 2}}, {{"text_embeds", kFloat32, 2}}};
    if (spec.stage == "decoder") return decoder_roles(spec.kv ? spec.kv->layers : 0);
    return {{{"input_ids", kIds, 2}}, {{"inputs_embeds", kFloats, 3}}};
}

void check_side(const GraphSpec& spec, const std::vector<Role>& roles, const std::vector<TensorSpec>& tensors) {
    std::set<std::string> known;
    for (const Role& role : roles) {
        known.insert(role.name);
        const TensorSpec* tensor = find_role(tensors, role.name);
        if (tensor == nullptr) {
            if (role.required) fail(spec, "the manifest lists no tensor of the role " + role.name);
            continue;
        }
        if (!is_kind(tensor->dtype, role.kind) || tensor->shape.size() != role.rank) {
            fail(spec, "the role " + role.name + " cannot be " + dtype_name(tensor->dtype) + " of shape " +
                           shape_text(tensor->shape));
        }
    }
    for (const TensorSpec& tensor : tensors) {
        if (known.count(tensor.role) == 0) fail(spec, "this library knows no role " + tensor.role + " here");
    }
}

}  // namespace

void check_roles(const GraphSpec& spec, const MethodSpec* method) {
    const Roles roles = roles_of(spec, method);
    check_side(spec, roles.inputs, spec.inputs);
    check_side(spec, roles.outputs, spec.outputs);
}

void check_link(const GraphSpec& encode, const GraphSpec& select) {
    for (const TensorSpec& read : select.inputs) {
        if (read.role == "keep_slots" || read.role == "pad_mask" || read.role == "text_embeds" ||
            read.role == "text_mask")
            continue;
        const TensorSpec* made = find_role(encode.outputs, read.role);
        if (made == nullptr || made->dtype != read.dtype || made->shape != read.shape) {
            fail(select, "it reads the role " + read.role + ", which " + encode.file + " does not make in this form");
        }
    }
}

BoundGraph::BoundGraph(const GraphSpec& spec, std::unique_ptr<Graph> graph, const Backend& backend)
    : spec_(spec), backend_(backend), graph_(std::move(graph)) {
    for (const TensorSpec& tensor : spec_.inputs) compare(spec_, tensor, graph_->inputs(), true);
    for (const TensorSpec& tensor : spec_.outputs) {
        compare(spec_, tensor, graph_->outputs(), false);
        output_names_.push_back(tensor.name);
    }
    for (const Port& port : graph_->inputs()) {
        const auto same_name = [&port](const TensorSpec& tensor) { return tensor.name == port.name; };
        if (std::none_of(spec_.inputs.begin(), spec_.inputs.end(), same_name)) {
            fail(spec_, "the graph has an input \"" + port.name + "\", which the manifest does not list");
        }
    }
}

bool BoundGraph::has_input(const std::string& role) const {
    return find_role(spec_.inputs, role) != nullptr;
}

const TensorSpec& BoundGraph::input(const std::string& role) const {
    const TensorSpec* tensor = find_role(spec_.inputs, role);
    if (tensor == nullptr) fail(spec_, "the manifest lists no input of the role " + role);
    return *tensor;
}

const TensorSpec& BoundGraph::output(const std::string& role) const {
    const TensorSpec* tensor = find_role(spec_.outputs, role);
    if (tensor == nullptr) fail(spec_, "the manifest lists no output of the role " + role);
    return *tensor;
}

RoleTensors BoundGraph::run(const RoleTensors& inputs, RunContext& context, const RoleTensors& memory) const {
    std::vector<NamedTensor> named;
    for (const TensorSpec& tensor : spec_.inputs) {
        const auto found = inputs.find(tensor.role);
        if (found == inputs.end()) throw Error(EP_ERROR_INTERNAL, "no value for the role " + tensor.role);
        named.push_back({tensor.name, found->second});
    }
    std::vector<TensorPtr> places;
    for (const TensorSpec& tensor : spec_.outputs) {
        const auto found = memory.find(tensor.role);
        places.push_back(found == memory.end() ? nullptr : found->second);
    }
    const std::vector<TensorPtr> results = memory.empty() ? graph_->run(named, output_names_, context)
                                                          : graph_->run_into(named, output_names_, places, context);
    RoleTensors outputs;
    for (size_t i = 0; i < results.size(); ++i) outputs[spec_.outputs[i].role] = results[i];
    return outputs;
}

}  // namespace edgeprune
