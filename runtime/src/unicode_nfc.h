// Normalization form C, in the Unicode version of Hugging Face `tokenizers`.
#pragma once

#include "tokenizer_normalize.h"

namespace edgeprune {

// Well-formed text in NFC. A composed character takes the origin of its first part and is plain as soon as one part is.
NormalizedText to_nfc(const NormalizedText& text);

}  // namespace edgeprune
