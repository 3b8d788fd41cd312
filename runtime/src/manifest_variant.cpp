// A variant's graphs and files in the place of the canonical ones.
#include "manifest_node.h"

namespace edgeprune {

using namespace manifest_parts;

namespace {

Node find_variant(const Node& list, const std::string& slug) {
    std::string known;
    for (const Node& item : list.items()) {
        const std::string name = item["slug"].text();
        if (name == slug) return Node(item.json(), "variants." + slug);
        known += (known.empty() ? "" : ", ") + name;
    }
    throw Error(EP_ERROR_INVALID_ARGUMENT, "the bundle has no variant \"" + slug + "\"; it has: " +
                                               (known.empty() ? "none" : known) + "; `edgeprune build` makes one");
}

// Which library runs the engines of a target; "": none that is known here.
std::string engine_module(const std::string& target) {
    if (target.rfind("tensorrt-rtx:", 0) == 0) return "tensorrt_rtx";
    return target.rfind("tensorrt:", 0) == 0 ? "tensorrt" : "";
}

// `edgeprune build` names an engine after its graph, and leaves it every tensor: only the cache of a decoder that is
// not fp32 becomes fp16.
void become_engine(GraphSpec& graph, const std::string& folder, bool half_cache) {
    const std::string name = graph.file.substr(graph.file.rfind('/') + 1);
    graph.file = folder + name.substr(0, name.rfind('.')) + ".engine";
    graph.data.clear();
    if (!half_cache) return;
    for (std::vector<TensorSpec>* tensors : {&graph.inputs, &graph.outputs}) {
        for (TensorSpec& tensor : *tensors) {
            const bool cache = tensor.role.rfind("past_", 0) == 0 || tensor.role.rfind("present_", 0) == 0;
            if (cache) tensor.dtype = DType::float16;
        }
    }
    graph.kv->dtype = DType::float16;
}

void use_engines(Manifest& manifest, const Node& node, const std::string& slug) {
    manifest.engines = engine_module(node["target"].text());
    if (manifest.engines.empty()) {
        throw Error(EP_ERROR_UNSUPPORTED, "variant \"" + slug + "\" holds engines for " + node["target"].text() +
                                              ", which this library cannot run; open the bundle without a variant");
    }
    const std::string build = safe_path(node["build"].text(), node.path() + ".build");
    const std::string folder = build.substr(0, build.rfind('/') + 1);
    for (auto& [name, stages] : manifest.vision) {
        for (GraphSpec& graph : stages) become_engine(graph, folder, false);
    }
    if (manifest.text) become_engine(*manifest.text, folder, false);
    become_engine(manifest.decoder, folder, node["precision"]["decoder"].text() != "fp32");
    manifest.decoder_step.reset();
}

}  // namespace

void manifest_parts::use_variant(Manifest& manifest, const Node& list, const std::string& slug) {
    const Node node = find_variant(list, slug);
    if (node.has("graphs")) {
        parse_graphs(node["graphs"], manifest);
    } else {
        use_engines(manifest, node, slug);
    }
    parse_files(node["files"], manifest);
    manifest.variant = slug;
    manifest.variant_target = node["target"].text();
}

}  // namespace edgeprune
