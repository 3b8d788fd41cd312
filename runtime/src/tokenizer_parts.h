// The parts of a tokenizer, as tokenizer_load.cpp reads them.
#pragma once

#include <memory>
#include <string_view>

#include "tokenizer_added.h"
#include "tokenizer_bpe.h"
#include "tokenizer_decode.h"
#include "tokenizer_normalize.h"
#include "tokenizer_pretokenize.h"

namespace edgeprune {

struct TokenizerParts {
    Normalizer normalizer;
    PreTokenizer pre_tokenizer;
    BpeModel model;
    AddedTokens added;
    DecoderSpec decoder;
};

// Throws Error, see Tokenizer::from_json.
std::unique_ptr<TokenizerParts> load_tokenizer(std::string_view json_text);

}  // namespace edgeprune
