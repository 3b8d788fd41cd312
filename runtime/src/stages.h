// The three graph runs of an answer: vision, embedding, decoder.
#pragma once

#include <cstdint>
#include <vector>

#include "kv_cache.h"
#include "model.h"

namespace edgeprune {

struct VisionResult {
    std::vector<float> embeds;  // (K, D)
    int64_t kept = 0, width = 0;
    std::vector<int64_t> keep_idx;  // (K)
    std::vector<float> scores;      // (N), empty when the method has none
};

// Preprocessed pixels, normalised, as the vision graph of a method reads them: (1, 3, height, width) float32.
// Throws Error(EP_ERROR_BUNDLE) when the graph reads another size.
TensorPtr pixel_tensor(const Model& model, const std::string& method, const Rgb& pixels);

// Pixels and their padding_mask -> kept visual tokens. K is read from the executed tensors.
// Throws Error(EP_ERROR_BACKEND) when the graph kept another number than `keep`, or made scores or embeddings that are
// NaN or Inf.
VisionResult encode_image(const Model& model, const std::string& method, int64_t keep, const TensorPtr& pixels,
                          const std::vector<float>& padding, RunContext& context);

// (L) ids -> (L, D) embeddings.
std::vector<float> embed_tokens(const Model& model, const std::vector<int32_t>& ids, RunContext& context);

// Runs the decoder on `items`, whose embeddings are (T, D), behind what `cache` holds; the cache grows by them.
// Returns the logits (V) of the last position.
std::vector<float> run_decoder(const Model& model, const std::vector<Item>& items, const std::vector<float>& embeds,
                               KvCache& cache, RunContext& context);

// Runs every graph of the bundle once on zeros.
void warm_up(const Model& model);

}  // namespace edgeprune
