// A question as the bundle's text encoder reads it.
#pragma once

#include <cstdint>
#include <vector>

#include "vision.h"

namespace edgeprune {

// Ids of a text with those that the text encoder's tokenizer puts around it.
std::vector<int32_t> with_affixes(const TextEncoderSpec& encoder, const std::vector<int32_t>& ids);

// Embeddings (M, E) of a question of any length: its ids cut into M segments, all but the last one full. Throws Error.
QuestionText run_text_encoder(const Model& model, const std::vector<int32_t>& ids, RunContext& context);

}  // namespace edgeprune
