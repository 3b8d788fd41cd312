// What every fuzz target needs. A target is one function over arbitrary bytes; an Error of the library is a fine
// outcome, anything else (another exception, a broken promise, a sanitizer's finding) is not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer.h"
#include "utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Stops the program where the library broke a promise.
inline void require(bool kept, const char* promise) {
    if (kept) return;
    std::fprintf(stderr, "broken promise: %s\n", promise);
    std::abort();
}

// Decodes and streams `ids`: same text, whole characters in every piece.
inline void check_streaming(const edgeprune::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
    edgeprune::StreamDecoder decoder(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
        const std::string piece = decoder.push(id);
        require(edgeprune::is_valid_utf8(piece), "a streamed piece holds whole characters");
        streamed += piece;
    }
    streamed += decoder.finish();
    require(streamed == tokenizer.decode(ids, true), "streaming gives the decoded text");
}
