// An opened bundle: immutable, shared between sessions and threads.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "backend.h"
#include "bound_graph.h"
#include "bundle_files.h"
#include "execution_provider.h"
#include "image.h"
#include "manifest.h"
#include "tokenizer.h"

namespace edgeprune {

struct ModelSettings {
    std::string onnxruntime_library;  // "" : search
    std::string variant;              // "" : the canonical graphs
    std::string provider;             // "" : the one that goes with the graphs
    ProviderChoice provider_choice;   // its settings; `kind` is chosen by `provider`
    Threading threading;
    bool map_weights = false;
    std::string profile_prefix;  // "": no traces
    bool hashes = true;
    int64_t memory_limit_bytes = 0;  // 0: none
    int64_t context_tokens = 0;      // 0: the manifest's context length
};

// The vision part of a method: one graph, or `encode` and `select`, which reads what the first one made.
struct VisionGraphs {
    std::unique_ptr<BoundGraph> first;   // from pixels
    std::unique_ptr<BoundGraph> select;  // null: the first graph makes the kept tokens itself
};

class Model {
public:
    // Opens, verifies and loads: the embedding, the decoder (or both of them) and the default method's vision graphs.
    // Throws Error.
    Model(const std::string& directory, const ModelSettings& settings);

    const Manifest& manifest() const { return manifest_; }
    const Backend& backend() const { return *backend_; }
    const Tokenizer& tokenizer() const { return *tokenizer_; }
    const PreprocessSpec& preprocess() const { return manifest_.preprocess; }
    const BoundGraph& embedding() const { return *embedding_; }
    const BoundGraph& decoder() const { return *decoder_; }
    // For each next token: a graph of its own in some variants.
    const BoundGraph& decoder_step() const { return decoder_step_ ? *decoder_step_ : *decoder_; }
    // The vision graphs of a method, loaded on its first use. Thread-safe.
    // Throws Error(EP_ERROR_INVALID_ARGUMENT) for an unknown method.
    const VisionGraphs& vision(const std::string& method) const;
    const MethodSpec& method(const std::string& name) const;
    // The JSON of ep_model_describe.
    const std::string& description() const { return description_; }

private:
    std::unique_ptr<BoundGraph> load(const GraphSpec& spec, const Threading& threading,
                                     const MethodSpec* method = nullptr) const;
    std::unique_ptr<Tokenizer> load_tokenizer() const;
    std::string describe() const;

    ModelSettings settings_;
    mutable BundleFiles files_;
    Manifest manifest_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Tokenizer> tokenizer_;
    std::unique_ptr<BoundGraph> embedding_, decoder_, decoder_step_;
    mutable std::mutex vision_mutex_;
    mutable std::map<std::string, VisionGraphs> vision_;
    std::string description_;
};

// The JSON of ep_bundle_describe. Reads the manifest, looks at file sizes and opens nothing else. Throws Error.
std::string describe_bundle(const std::string& directory, const ModelSettings& settings);

}  // namespace edgeprune
