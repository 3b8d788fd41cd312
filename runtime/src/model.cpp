#include "model.h"

#include <unistd.h>

#include "backend_ort.h"
#include "engine_library.h"
#include "error.h"
#include "fingerprint.h"
#include "log.h"
#include "memory_need.h"
#include "shape_ranges.h"

namespace edgeprune {
namespace {

constexpr const char* kTokenizerFile = "tokenizer/tokenizer.json";

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text.empty() ? "none" : text;
}

Threading one_thread(Threading threading) {
    threading.threads = 1;
    threading.cores.clear();
    return threading;
}

// Beginning of the path of a graph's trace, "" without a prefix. The engine is silent about a directory it cannot
// write.
std::string trace_prefix(const std::string& prefix, const std::string& file) {
    if (prefix.empty()) return "";
    const size_t slash = prefix.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : prefix.substr(0, slash + 1);
    if (access(folder.c_str(), W_OK | X_OK) != 0) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "profile_prefix is \"" + prefix + "\", but \"" + folder +
                                                   "\" is no directory that can be written to");
    }
    const size_t begin = file.rfind('/') == std::string::npos ? 0 : file.rfind('/') + 1;
    return prefix + file.substr(begin, file.rfind('.') - begin);
}

// Refuses by name what a manifest may say and this library cannot do.
void check_supported(const Manifest& manifest) {
    if (manifest.positions != "compact") {
        throw Error(EP_ERROR_UNSUPPORTED, "this library does not know \"" + manifest.positions + "\" positions");
    }
    const std::string& kind = manifest.decoder.kv->kind;
    const bool engines = !manifest.engines.empty();
    if (kind != "growing" && (kind != kFixedKv || engines)) {
        throw Error(EP_ERROR_UNSUPPORTED,
                    "this library does not know a \"" + kind + "\" KV cache" + (engines ? " of engines" : ""));
    }
}

// The manifest with the variant's graphs in the place of the canonical ones, once the variant is known to fit.
Manifest read_manifest(const BundleFiles& files, const std::string& variant) {
    const std::string text = read_text_file(files.directory() + "/manifest.json");
    require_fitting_variant(files, text, variant);
    return parse_manifest(text, variant);
}

// What other graphs read and this library does not: the cache, and what `encode` gives `select`.
std::vector<std::string> passed_on(const GraphSpec& spec) {
    std::vector<std::string> names;
    for (const TensorSpec& tensor : spec.outputs) {
        const bool cache = tensor.role.rfind("present_", 0) == 0;
        if (cache || (spec.stage == "encode" && tensor.role != "scores")) names.push_back(tensor.name);
    }
    return names;
}

// Graph -> operator -> nodes that run on the CPU beside another provider.
std::string cpu_nodes(const std::vector<const BoundGraph*>& graphs) {
    JsonObject found;
    for (const BoundGraph* graph : graphs) {
        if (graph == nullptr) continue;
        JsonObject operators;
        for (const auto& [op, count] : graph->cpu_operators()) operators.add(op.c_str(), count);
        found.add_json(graph->spec().file.c_str(), operators.text());
    }
    return found.text();
}

// The height or width of a preprocessed picture where the manifest fixes it, else -1.
int64_t fixed_edge(int crop, bool exact, int resized) {
    return crop > 0 ? crop : (exact ? resized : -1);
}

void check_picture_size(const PreprocessSpec& preprocess, const BoundGraph& vision) {
    const Shape& shape = vision.input("pixel_values").shape;
    const int64_t height = fixed_edge(preprocess.crop_height, preprocess.exact, preprocess.resize_height);
    const int64_t width = fixed_edge(preprocess.crop_width, preprocess.exact, preprocess.resize_width);
    const auto differ = [](int64_t a, int64_t b) { return a > 0 && b > 0 && a != b; };
    if (differ(height, shape[2]) || differ(width, shape[3])) {
        throw Error(EP_ERROR_BUNDLE, "manifest.json: preprocess makes pictures of " + shape_text({height, width}) +
                                         ", but the vision graph reads " + shape_text(shape));
    }
}

// What the text encoder makes must be what the select graph reads.
void check_width(const BoundGraph& text, const BoundGraph& select) {
    const int64_t made = text.output("text_embeds").shape[1], read = select.input("text_embeds").shape[2];
    if (made == read) return;
    throw Error(EP_ERROR_BUNDLE, select.spec().file + " reads text_embeds " + std::to_string(read) + " wide, but " +
                                     text.spec().file + " makes them " + std::to_string(made) +
                                     " wide; export the bundle again");
}

}  // namespace

Model::Model(const std::string& directory, const ModelSettings& settings)
    : settings_(settings), files_(directory), manifest_(read_manifest(files_, settings.variant)) {
    check_supported(manifest_);
    limit_context(manifest_, settings.context_tokens);
    files_.check_sizes(manifest_);
    check_memory(memory_need(manifest_), settings.memory_limit_bytes);
    if (!manifest_.engines.empty()) engines_ = open_engine_backend(manifest_.engines, manifest_.variant);
    settings_.provider_choice =
        choose_provider(settings.provider_choice, settings.provider, manifest_.variant, manifest_.variant_target);
    backend_ = open_ort_backend(settings.onnxruntime_library, *read_version(manifest_.min_onnxruntime),
                                settings_.provider_choice);
    tokenizer_ = load_tokenizer();
    // One row of a table: a second thread would only wait for the first.
    embedding_ = load(manifest_.embedding, *backend_, one_thread(settings_.threading));
    decoder_ = load(manifest_.decoder, main_backend(), settings_.threading);
    if (manifest_.decoder_step) decoder_step_ = load(*manifest_.decoder_step, main_backend(), settings_.threading);
    check_picture_size(manifest_.preprocess, *vision(manifest_.default_method).first);
    description_ = describe();
}

std::unique_ptr<Tokenizer> Model::load_tokenizer() const {
    auto tokenizer = Tokenizer::from_json(read_text_file(files_.verified(manifest_, kTokenizerFile, settings_.hashes)));
    const TokenSpec& tokens = manifest_.tokens;
    if (tokenizer->token_to_id(tokens.image_marker) != tokens.image) {
        throw Error(EP_ERROR_BUNDLE, "manifest.json: tokens.image is " + std::to_string(tokens.image) +
                                         ", but the tokenizer gives \"" + tokens.image_marker + "\" the id " +
                                         std::to_string(tokenizer->token_to_id(tokens.image_marker)));
    }
    return tokenizer;
}

std::unique_ptr<BoundGraph> Model::load(const GraphSpec& spec, const Backend& backend, const Threading& threading,
                                        const MethodSpec* method) const {
    check_roles(spec, method);
    for (const std::string& file : spec.data) files_.verified(manifest_, file, settings_.hashes);
    const std::string path = files_.verified(manifest_, spec.file, settings_.hashes);
    log(EP_LOG_INFO, "loading " + path);
    GraphOptions options{threading, settings_.map_weights, trace_prefix(settings_.profile_prefix, spec.file), {}, {}};
    options.passed_on = passed_on(spec);
    if (settings_.provider_choice.kind == ProviderKind::tensorrt) {
        options.ranges = input_ranges(manifest_, spec, method);
    }
    return std::make_unique<BoundGraph>(spec, backend.open_graph(path, options), backend);
}

const MethodSpec& Model::method(const std::string& name) const {
    const auto found = manifest_.methods.find(name);
    if (found != manifest_.methods.end()) return found->second;
    std::vector<std::string> names;
    for (const auto& [known, spec] : manifest_.methods) names.push_back(known);
    throw Error(EP_ERROR_INVALID_ARGUMENT,
                "the bundle has no pruning method \"" + name + "\"; it has: " + joined(names));
}

const VisionGraphs& Model::vision(const std::string& name) const {
    const MethodSpec& spec = method(name);
    const std::vector<GraphSpec>& stages = manifest_.vision.at(name);
    const std::lock_guard<std::mutex> lock(vision_mutex_);
    const auto known = vision_.find(name);
    if (known != vision_.end()) return known->second;
    VisionGraphs graphs;
    graphs.first = load(stages.front(), main_backend(), settings_.threading, &spec);
    if (stages.size() == 2) {
        check_link(stages.front(), stages.back());
        graphs.select = load(stages.back(), main_backend(), settings_.threading, &spec);
    }
    if (spec.text_encoder) check_width(*loaded_text_encoder().graph, *graphs.select);
    return vision_.emplace(name, std::move(graphs)).first->second;
}

const TextEncoder& Model::text_encoder() const {
    const std::lock_guard<std::mutex> lock(vision_mutex_);
    return loaded_text_encoder();
}

const TextEncoder& Model::loaded_text_encoder() const {
    if (text_encoder_) return *text_encoder_;
    if (!manifest_.text) throw Error(EP_ERROR_BUNDLE, "manifest.json: graphs.text is missing");
    TextEncoder encoder;
    encoder.tokenizer =
        Tokenizer::from_json(read_text_file(files_.verified(manifest_, kTextTokenizerFile, settings_.hashes)));
    encoder.graph = load(*manifest_.text, main_backend(), settings_.threading);
    return text_encoder_.emplace(std::move(encoder));
}

std::string Model::describe() const {
    JsonObject engine;
    engine.add("version", backend_->version()).add("library", backend_->library());
    JsonObject description = describe_manifest(manifest_);
    description.add("provider", main_backend().provider());
    description.add_json("variant", manifest_.variant.empty() ? "null" : json_scalar(manifest_.variant));
    description.add_json("onnxruntime", engine.text());
    if (engines_) {
        JsonObject tensorrt;
        tensorrt.add("version", engines_->version()).add("library", engines_->library());
        description.add_json("tensorrt", tensorrt.text());
    }
    if (settings_.provider_choice.kind != ProviderKind::cpu) {
        const VisionGraphs& seen = vision(manifest_.default_method);
        description.add_json("cpu_nodes", cpu_nodes({seen.first.get(), seen.select.get(), embedding_.get(),
                                                     decoder_.get(), decoder_step_.get()}));
    }
    return description.text();
}

std::string describe_bundle(const std::string& directory, const ModelSettings& settings) {
    const BundleFiles files(directory);
    Manifest manifest = parse_manifest(read_text_file(files.directory() + "/manifest.json"), settings.variant);
    limit_context(manifest, settings.context_tokens);
    files.check_sizes(manifest);
    return describe_manifest(manifest).text();
}

}  // namespace edgeprune
