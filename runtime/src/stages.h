// The graph runs of an answer that follow the vision part: embedding and decoder.
#pragma once

#include <cstdint>
#include <vector>

#include "kv_cache.h"
#include "model.h"

namespace edgeprune {

// (L) ids -> (L, D) embeddings.
std::vector<float> embed_tokens(const Model& model, const std::vector<int32_t>& ids, RunContext& context);

// Runs one of a model's decoders on `items`, whose embeddings are (T, D), behind what `cache` holds; the cache grows
// by them. Returns the logits (V) of the last position.
std::vector<float> run_decoder(const BoundGraph& decoder, const std::vector<Item>& items,
                               const std::vector<float>& embeds, KvCache& cache, RunContext& context);

// Runs every graph of the bundle once on zeros.
void warm_up(const Model& model);

}  // namespace edgeprune
