// How much memory a bundle takes, told from its manifest alone.
#pragma once

#include <cstdint>

#include "json_text.h"
#include "manifest.h"

namespace edgeprune {

// Bytes for one session. Weights and KV cache are exact; activations are an estimate.
struct MemoryNeed {
    uint64_t weights = 0;      // files of the graphs that opening loads: embedding, decoder, default method's vision
    uint64_t kv = 0;           // of a full context; see memory_need()
    uint64_t activations = 0;  // the largest tensors of one run; see memory_need.cpp
    int64_t context_tokens = 0;

    uint64_t total() const { return weights + kv + activations; }
};

int64_t kv_bytes_per_token(const KvSpec& kv);
// Of the files of every graph of the bundle.
uint64_t all_weights_bytes(const Manifest& manifest);
// A growing KV cache counts twice: while the decoder runs, the old one stands beside the new. One of fixed capacity
// counts once, and one of its tensors twice.
MemoryNeed memory_need(const Manifest& manifest);
JsonObject to_json(const MemoryNeed& need);
// What ep_model_describe and ep_bundle_describe have in common.
JsonObject describe_manifest(const Manifest& manifest);
// Throws Error(EP_ERROR_OUT_OF_MEMORY). limit: bytes; 0: none.
void check_memory(const MemoryNeed& need, int64_t limit);
// Makes `context_tokens` the manifest's context length; 0 leaves it. Throws Error(EP_ERROR_INVALID_ARGUMENT).
void limit_context(Manifest& manifest, int64_t context_tokens);

}  // namespace edgeprune
