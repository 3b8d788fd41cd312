#include "manifest.h"

#include <algorithm>
#include <set>

#include "library_search.h"
#include "manifest_node.h"

namespace edgeprune {

using namespace manifest_parts;

// The pattern of "path" in the schema.
std::string manifest_parts::safe_path(const std::string& path, const std::string& where) {
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
               c == '/' || c == '-';
    };
    const bool parent = ("/" + path + "/").find("/../") != std::string::npos;
    if (path.empty() || path.front() == '/' || parent || !std::all_of(path.begin(), path.end(), allowed)) {
        fail(where + " is \"" + path + "\", but paths must be relative and stay inside the bundle");
    }
    return path;
}

namespace {

std::vector<int32_t> parse_ids(const Node& node) {
    std::vector<int32_t> ids;
    for (const Node& item : node.items()) ids.push_back(static_cast<int32_t>(item.integer(0, INT32_MAX)));
    return ids;
}

DType parse_dtype(const Node& node) {
    const std::string name = node.text();
    for (const DType dtype : {DType::float32, DType::float16, DType::int64, DType::int32}) {
        if (name == dtype_name(dtype)) return dtype;
    }
    fail(node.path() + " \"" + name + "\" is not an element type");
}

TensorSpec parse_tensor(const Node& node) {
    TensorSpec tensor;
    tensor.role = node["role"].text();
    tensor.name = node["name"].text();
    tensor.dtype = parse_dtype(node["dtype"]);
    for (const Node& dimension : node["shape"].items()) {
        tensor.shape.push_back(dimension.json().is_string() ? -1 : dimension.count());
    }
    return tensor;
}

std::vector<TensorSpec> parse_tensors(const Node& node) {
    std::vector<TensorSpec> tensors;
    std::set<std::string> roles;
    for (const Node& item : node.items()) {
        tensors.push_back(parse_tensor(item));
        if (!roles.insert(tensors.back().role).second) fail(item.path() + " repeats the role " + tensors.back().role);
    }
    return tensors;
}

KvSpec parse_kv(const Node& node) {
    KvSpec kv;
    kv.kind = node["kind"].text();
    kv.layers = node["layers"].integer(1, 10000);
    kv.heads = node["heads"].count();
    kv.head_dim = node["head_dim"].count();
    kv.dtype = parse_dtype(node["dtype"]);
    return kv;
}

GraphSpec parse_graph(const Node& node) {
    GraphSpec graph;
    graph.stage = node["stage"].text();
    graph.file = safe_path(node["file"].text(), node.path() + ".file");
    for (const Node& item : node["data"].items()) graph.data.push_back(safe_path(item.text(), item.path()));
    graph.inputs = parse_tensors(node["inputs"]);
    graph.outputs = parse_tensors(node["outputs"]);
    if (node.has("kv")) graph.kv = parse_kv(node["kv"]);
    return graph;
}

std::vector<CountRun> parse_counts(const Node& node) {
    std::vector<CountRun> runs;
    for (const Node& item : node.items()) {
        const CountRun run{item["first"].count(), item["last"].count(), item["step"].count()};
        if (run.first > run.last || (run.last - run.first) % run.step != 0) {
            fail(item.path() + " must lead from first to last in whole steps");
        }
        runs.push_back(run);
    }
    if (runs.empty()) fail(node.path() + " must not be empty");
    return runs;
}

MethodSpec parse_method(const std::string& name, const Node& node) {
    MethodSpec method;
    method.name = name;
    method.where = node["where"].text();
    method.text = node["text"].flag();
    method.text_encoder = node.has("text_encoder") && node["text_encoder"].flag();
    if (method.text_encoder && !method.text) fail(node.path() + ".text_encoder needs text");
    method.dynamic_keep = node["dynamic_keep"].flag();
    const Node fixed = node["static_keep"];
    if (!fixed.json().is_null()) method.static_keep = fixed.count();
    if (method.dynamic_keep == method.static_keep.has_value()) {
        fail(node.path() + " must have either dynamic_keep or static_keep");
    }
    if (node.has("keep_counts")) method.keep_counts = parse_counts(node["keep_counts"]);
    return method;
}

PromptSegment parse_segment(const Node& node) {
    PromptSegment segment;
    if (node.has("text")) {
        segment.text = node["text"].text();
    } else if (node.has("images")) {
        segment.kind = PromptSegment::Kind::images;
        segment.before = node["images"]["before"].text();
        segment.after = node["images"]["after"].text();
    } else if (node.has("question")) {
        segment.kind = PromptSegment::Kind::question;
    } else {
        fail(node.path() + " must be text, images or question");
    }
    return segment;
}

TokenSpec parse_tokens(const Node& node) {
    TokenSpec tokens;
    tokens.image_marker = node["image_marker"].text();
    tokens.image = static_cast<int32_t>(node["image"].integer(0, INT32_MAX));
    tokens.eos = parse_ids(node["eos"]);
    tokens.prefix = parse_ids(node["prefix"]);
    tokens.suffix = parse_ids(node["suffix"]);
    for (const Node& item : node["stop"].items()) tokens.stop.push_back(item.text());
    return tokens;
}

TextEncoderSpec parse_text_encoder(const Node& node) {
    TextEncoderSpec encoder;
    encoder.segment_tokens = node["segment_tokens"].integer(1, 1 << 20);
    encoder.prefix = parse_ids(node["prefix"]);
    encoder.suffix = parse_ids(node["suffix"]);
    return encoder;
}

void parse_keep(const Node& node, Manifest& manifest) {
    manifest.keep_default = node["default"].ratio();
    manifest.keep_min = node["min"].ratio();
    manifest.keep_max = node["max"].ratio();
    if (!(manifest.keep_min <= manifest.keep_default && manifest.keep_default <= manifest.keep_max)) {
        fail("keep.default must lie between keep.min and keep.max");
    }
    if (!node.has("auto")) return;
    const Node given = node["auto"];
    const AutoKeep choice{given["mass"].ratio(), given["min"].ratio(), given["max"].ratio()};
    if (!(manifest.keep_min <= choice.min && choice.min <= choice.max && choice.max <= manifest.keep_max)) {
        fail("keep.auto.min and keep.auto.max must lie in this order between keep.min and keep.max");
    }
    manifest.keep_auto = choice;
}

void parse_grid(const Node& root, Manifest& manifest) {
    manifest.visual_tokens = root["visual_tokens"].integer(1, int64_t{1} << 31);
    const std::vector<Node> grid = root["grid"].items();
    if (grid.size() != 2) fail("grid must be [rows, columns]");
    manifest.grid_rows = static_cast<int32_t>(grid[0].integer(1, 1 << 20));
    manifest.grid_cols = static_cast<int32_t>(grid[1].integer(1, 1 << 20));
    if (int64_t{manifest.grid_rows} * manifest.grid_cols != manifest.visual_tokens) {
        fail("grid must hold visual_tokens patches");
    }
}

void parse_methods(const Node& node, Manifest& manifest) {
    manifest.default_method = node["default"].text();
    for (const auto& [name, method] : node["each"].members())
        manifest.methods.emplace(name, parse_method(name, method));
    if (manifest.methods.count(manifest.default_method) == 0) {
        fail("methods.default \"" + manifest.default_method + "\" is not one of methods.each");
    }
}

// A method is one graph, or two: encode and select. Only the latter can read the question.
void check_stages(const std::vector<GraphSpec>& stages, const MethodSpec& method) {
    const bool one = stages.size() == 1 && stages[0].stage == "vision";
    const bool two = stages.size() == 2 && stages[0].stage == "encode" && stages[1].stage == "select";
    if (two || (one && !method.text)) return;
    fail("graphs.vision." + method.name + " must hold " + (method.text ? "" : "a graph of the stage vision, or ") +
         "one of the stage encode and one of the stage select");
}

// The text encoder's graph stands where the manifest tells its ids, and methods that read by it need both.
void parse_text_graph(const Node& node, Manifest& manifest) {
    manifest.text.reset();
    if (node.has("text")) manifest.text = parse_graph(node["text"]);
    if (manifest.text.has_value() != manifest.text_encoder.has_value()) {
        fail(node.path() + ".text and text_encoder belong together");
    }
    for (const auto& [name, method] : manifest.methods) {
        if (method.text_encoder && !manifest.text) fail("methods.each." + name + " needs " + node.path() + ".text");
    }
}

}  // namespace

void manifest_parts::parse_graphs(const Node& node, Manifest& manifest) {
    manifest.vision.clear();
    for (const auto& [name, list] : node["vision"].members()) {
        std::vector<GraphSpec>& stages = manifest.vision[name];
        for (const Node& item : list.items()) stages.push_back(parse_graph(item));
        if (stages.empty()) fail(list.path() + " is empty");
    }
    for (const auto& [name, method] : manifest.methods) {
        if (manifest.vision.count(name) == 0) fail("graphs.vision has no graph for the method \"" + name + "\"");
        check_stages(manifest.vision.at(name), method);
    }
    parse_text_graph(node, manifest);
    manifest.embedding = parse_graph(node["embedding"]);
    manifest.decoder = parse_graph(node["decoder"]);
    if (!manifest.decoder.kv) fail("graphs.decoder.kv is missing");
    manifest.decoder_step.reset();
    if (!node.has("decoder_step")) return;
    manifest.decoder_step = parse_graph(node["decoder_step"]);
    if (!(manifest.decoder_step->kv == manifest.decoder.kv)) {
        fail("graphs.decoder_step.kv must be that of graphs.decoder");
    }
}

void manifest_parts::parse_files(const Node& node, Manifest& manifest) {
    for (const auto& [path, file] : node.members()) {
        FileSpec spec;
        spec.sha256 = file["sha256"].text();
        spec.bytes = static_cast<uint64_t>(file["bytes"].integer(0));
        manifest.files.emplace(safe_path(path, node.path()), spec);
    }
}

namespace {

void check_version(const Node& root) {
    const Json& version = root["schema_version"].json();
    if (version != kManifestSchemaVersion) {
        fail("schema_version is " + version.dump() + ", but this library reads " +
             std::to_string(kManifestSchemaVersion) + "; export the bundle again with this version of edgeprune");
    }
}

Manifest parse_root(const Node& root) {
    check_version(root);
    Manifest manifest;
    manifest.name = root["name"].text();
    manifest.family = root["family"].text();
    parse_grid(root, manifest);
    parse_keep(root["keep"], manifest);
    parse_methods(root["methods"], manifest);
    manifest.preprocess = parse_preprocess(root["preprocess"].json());
    for (const Node& item : root["prompt"]["segments"].items()) manifest.prompt.push_back(parse_segment(item));
    manifest.tokens = parse_tokens(root["tokens"]);
    manifest.positions = root["positions"].text();
    manifest.context_length = root["context_length"].count();
    if (root.has("text_encoder")) manifest.text_encoder = parse_text_encoder(root["text_encoder"]);
    parse_graphs(root["graphs"], manifest);
    parse_files(root["files"], manifest);
    manifest.min_onnxruntime = root["min_onnxruntime"].text();
    if (!read_version(manifest.min_onnxruntime)) fail("min_onnxruntime must begin with two numbers, as \"1.17\"");
    return manifest;
}

}  // namespace

Manifest parse_manifest(const std::string& json_text, const std::string& variant) {
    try {
        const JsonDocument document(json_text);
        const Node root(document.root(), "");
        Manifest manifest = parse_root(root);
        const Node variants = root["variants"];
        if (!variant.empty()) use_variant(manifest, variants, variant);
        return manifest;
    } catch (const JsonError& error) {
        fail(error.what());
    }
}

}  // namespace edgeprune
