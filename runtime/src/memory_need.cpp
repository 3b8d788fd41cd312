#include "memory_need.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string>

#include "error.h"
#include "kv_cache.h"

namespace edgeprune {
namespace {

void add_files(const GraphSpec& graph, std::set<std::string>& files) {
    files.insert(graph.file);
    files.insert(graph.data.begin(), graph.data.end());
}

uint64_t bytes_of(const Manifest& manifest, const std::set<std::string>& files) {
    uint64_t bytes = 0;
    for (const std::string& file : files) {
        const auto found = manifest.files.find(file);
        if (found == manifest.files.end()) {
            throw Error(EP_ERROR_BUNDLE, "manifest.json: files does not list " + file);
        }
        bytes += found->second.bytes;
    }
    return bytes;
}

double last_dimension(const std::vector<TensorSpec>& tensors, const char* role) {
    for (const TensorSpec& tensor : tensors) {
        if (tensor.role == role && !tensor.shape.empty())
            return static_cast<double>(std::max<int64_t>(0, tensor.shape.back()));
    }
    return 0;
}

// Attention without fusion holds its float32 scores (heads, T, T) before and after the softmax; beside them stands the
// widest layer. The manifest tells neither the query heads nor the inner width of the MLP: D / head width and 4 D are
// the usual ones. float64, for a long context squared overflows 64 bits.
double activations_of(double heads, double tokens, double width) {
    return 4 * (2 * heads * tokens * tokens + 4 * width * tokens);
}

double decoder_activations(const Manifest& manifest) {
    const double width = last_dimension(manifest.decoder.inputs, "inputs_embeds");
    const double heads = std::max(width / static_cast<double>(manifest.decoder.kv->head_dim),
                                  static_cast<double>(manifest.decoder.kv->heads));
    return activations_of(heads, static_cast<double>(manifest.context_length), width) +
           4 * last_dimension(manifest.decoder.outputs, "logits");
}

// A vision encoder of 16 heads of 64, as the usual ViT-L has them.
double vision_activations(const Manifest& manifest) {
    return activations_of(16, static_cast<double>(manifest.visual_tokens) + 1, 1024);
}

std::string mib(uint64_t bytes) {
    return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

}  // namespace

int64_t kv_bytes_per_token(const KvSpec& kv) {
    // In float64, for a manifest may state numbers whose product overflows 64 bits.
    const double bytes = 2.0 * static_cast<double>(kv.layers) * static_cast<double>(kv.heads) *
                         static_cast<double>(kv.head_dim) * static_cast<double>(dtype_bytes(kv.dtype));
    return static_cast<int64_t>(std::min(bytes, 0x1p60));
}

uint64_t all_weights_bytes(const Manifest& manifest) {
    std::set<std::string> files;
    add_files(manifest.embedding, files);
    add_files(manifest.decoder, files);
    if (manifest.decoder_step) add_files(*manifest.decoder_step, files);
    if (manifest.text) add_files(*manifest.text, files);
    for (const auto& [name, stages] : manifest.vision) {
        for (const GraphSpec& graph : stages) add_files(graph, files);
    }
    return bytes_of(manifest, files);
}

MemoryNeed memory_need(const Manifest& manifest) {
    std::set<std::string> files;
    add_files(manifest.embedding, files);
    add_files(manifest.decoder, files);
    if (manifest.decoder_step) add_files(*manifest.decoder_step, files);
    for (const GraphSpec& graph : manifest.vision.at(manifest.default_method)) add_files(graph, files);
    if (manifest.methods.at(manifest.default_method).text_encoder) add_files(*manifest.text, files);
    MemoryNeed need;
    need.weights = bytes_of(manifest, files);
    need.context_tokens = manifest.context_length;
    const KvSpec& spec = *manifest.decoder.kv;
    const double kv = static_cast<double>(kv_bytes_per_token(spec)) *
                      (spec.kind == kFixedKv ? static_cast<double>(KvCache::capacity_for(manifest.context_length)) *
                                                   (1 + 0.5 / static_cast<double>(spec.layers))
                                             : 2.0 * static_cast<double>(manifest.context_length));
    constexpr double kMost = 0x1p60;  // more than any memory, and sums of it fit
    need.kv = static_cast<uint64_t>(std::min(kv, kMost));
    need.activations =
        static_cast<uint64_t>(std::min(std::max(decoder_activations(manifest), vision_activations(manifest)), kMost));
    return need;
}

JsonObject to_json(const MemoryNeed& need) {
    JsonObject object;
    object.add("total_bytes", need.total()).add("weights_bytes", need.weights).add("kv_bytes", need.kv);
    object.add("activations_bytes", need.activations).add("context_tokens", need.context_tokens);
    object.add_json("estimated", json_list(std::array{"activations_bytes"}));
    return object;
}

JsonObject describe_manifest(const Manifest& manifest) {
    std::vector<std::string> methods;
    for (const auto& [name, spec] : manifest.methods) methods.push_back(name);
    JsonObject keep;
    keep.add("default", manifest.keep_default).add("min", manifest.keep_min).add("max", manifest.keep_max);
    if (manifest.keep_auto) {
        JsonObject automatic;
        automatic.add("mass", manifest.keep_auto->mass).add("min", manifest.keep_auto->min);
        keep.add_json("auto", automatic.add("max", manifest.keep_auto->max).text());
    }
    JsonObject object;
    object.add("name", manifest.name).add("family", manifest.family);
    object.add("context_length", manifest.context_length).add("visual_tokens", manifest.visual_tokens);
    object.add_json("grid", json_list(std::array{manifest.grid_rows, manifest.grid_cols}));
    object.add_json("keep", keep.text()).add_json("methods", json_list(methods));
    object.add("default_method", manifest.default_method).add("weights_bytes", all_weights_bytes(manifest));
    object.add("kv_bytes_per_token", kv_bytes_per_token(*manifest.decoder.kv));
    object.add_json("memory", to_json(memory_need(manifest)).text());
    return object;
}

void check_memory(const MemoryNeed& need, int64_t limit) {
    if (limit == 0 || need.total() <= static_cast<uint64_t>(limit)) return;
    throw Error(EP_ERROR_OUT_OF_MEMORY, "the bundle needs " + mib(need.total()) + " (weights " + mib(need.weights) +
                                            ", KV cache of " + std::to_string(need.context_tokens) + " tokens " +
                                            mib(need.kv) + ", activations about " + mib(need.activations) +
                                            "), but the memory limit is " + mib(static_cast<uint64_t>(limit)) +
                                            "; ask for fewer context_tokens or raise the limit");
}

void limit_context(Manifest& manifest, int64_t context_tokens) {
    if (context_tokens == 0) return;
    if (context_tokens > manifest.context_length) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "context_tokens is " + std::to_string(context_tokens) +
                                                   ", but the bundle's context holds " +
                                                   std::to_string(manifest.context_length));
    }
    manifest.context_length = context_tokens;
}

}  // namespace edgeprune
