// The Lowercase normalizer of tokenizer.json.
#pragma once

#include "tokenizer_normalize.h"

namespace edgeprune {

// Every character by itself, as Rust's char::to_lowercase: no rule looks at neighbours.
NormalizedText to_lower(const NormalizedText& text);

}  // namespace edgeprune
