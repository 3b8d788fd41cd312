// manifest.json of a bundle: parsed and validated as far as the runtime reads it (docs/manifest.schema.json has it
// all).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "image.h"

namespace edgeprune {

constexpr int kManifestSchemaVersion = 1;

// A tensor of a graph, bound by role. A free dimension (a letter in the manifest) is -1.
struct TensorSpec {
    std::string role;
    std::string name;
    DType dtype = DType::float32;
    Shape shape;
};

// KvSpec::kind: past and present are one buffer with room for more tokens; "growing": present is longer than past.
constexpr const char* kFixedKv = "fixed";

struct KvSpec {
    std::string kind;
    int64_t layers = 0, heads = 0, head_dim = 0;
    DType dtype = DType::float32;

    bool operator==(const KvSpec& other) const {
        return kind == other.kind && layers == other.layers && heads == other.heads && head_dim == other.head_dim &&
               dtype == other.dtype;
    }
};

struct GraphSpec {
    std::string stage;
    std::string file;
    std::vector<std::string> data;
    std::vector<TensorSpec> inputs, outputs;
    std::optional<KvSpec> kv;
};

// The counts first, first + step, ... last.
struct CountRun {
    int64_t first = 1, last = 1, step = 1;
};

struct MethodSpec {
    std::string name;
    std::string where;
    bool text = false;
    bool text_encoder = false;  // the question is read by graphs.text, not by the embedding graph
    bool dynamic_keep = false;
    std::optional<int64_t> static_keep;
    std::vector<CountRun> keep_counts;  // the K it serves; empty: every one from 1 to N
};

// K is the least that holds this share of the scores' sum, between two keep ratios.
struct AutoKeep {
    double mass = 0, min = 0, max = 0;
};

struct PromptSegment {
    enum class Kind { text, images, question } kind = Kind::text;
    std::string text;           // text
    std::string before, after;  // images
};

struct TokenSpec {
    std::string image_marker;
    int32_t image = 0;
    std::vector<int32_t> eos, prefix, suffix;
    std::vector<std::string> stop;
};

// How a question becomes the ids that graphs.text reads; its tokenizer is kTextTokenizerFile.
struct TextEncoderSpec {
    int64_t segment_tokens = 0;           // a longer question is cut into rows of so many ids
    std::vector<int32_t> prefix, suffix;  // of the whole question
};

constexpr const char* kTextTokenizerFile = "text-tokenizer/tokenizer.json";

struct FileSpec {
    std::string sha256;
    uint64_t bytes = 0;
};

struct Manifest {
    std::string name, family;
    int64_t visual_tokens = 0;
    int32_t grid_rows = 0, grid_cols = 0;
    double keep_default = 0, keep_min = 0, keep_max = 0;
    std::optional<AutoKeep> keep_auto;  // how K is chosen where a request names no keep ratio
    std::string default_method;
    std::map<std::string, MethodSpec> methods;
    PreprocessSpec preprocess;
    std::vector<PromptSegment> prompt;
    TokenSpec tokens;
    std::string positions;
    int64_t context_length = 0;
    std::map<std::string, std::vector<GraphSpec>> vision;
    GraphSpec embedding, decoder;
    std::optional<GraphSpec> text;                // of the text encoder
    std::optional<TextEncoderSpec> text_encoder;  // there where `text` is
    std::optional<GraphSpec> decoder_step;        // runs one token at a time in the place of `decoder`
    std::map<std::string, FileSpec> files;
    std::string min_onnxruntime;
    std::string variant;         // slug of the one in use; "": the canonical graphs
    std::string variant_target;  // what it is built for
    std::string engines;  // "tensorrt" or "tensorrt_rtx": what runs all but the embedding; "": onnxruntime, as that
};

// variant: slug of a built variant whose graphs and files take the place of the canonical ones; "": those.
// Throws Error: EP_ERROR_BUNDLE that names the field, also for paths that are absolute or contain "..";
// EP_ERROR_INVALID_ARGUMENT when there is no such variant; EP_ERROR_UNSUPPORTED when it holds engines that no library
// here runs, or when this library does not know the preprocessing.
Manifest parse_manifest(const std::string& json_text, const std::string& variant = "");

}  // namespace edgeprune
