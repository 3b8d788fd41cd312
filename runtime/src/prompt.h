// From a question to the sequence that the decoder reads.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "manifest.h"
#include "tokenizer.h"

namespace edgeprune {

// One position of the sequence: a token id, or one kept visual token of an image.
struct Item {
    int32_t token = -1;  // -1: visual
    int32_t image = -1;
    int32_t slot = -1;  // 0 .. K-1

    bool visual() const { return image >= 0; }
    friend bool operator==(const Item& a, const Item& b) {
        return a.token == b.token && a.image == b.image && a.slot == b.slot;
    }
};

// An image of the question and how many tokens it kept.
struct ImageSlots {
    int32_t image;
    int64_t kept;
};

struct PromptText {
    std::string text;
    std::vector<TextSpan> plain;  // where no special token may match
};

// The manifest's segments joined: literals, one marker per image, the question. The question is plain unless
// allow_special.
PromptText render_prompt(const Manifest& manifest, const std::string& question, size_t image_count, bool allow_special);

// Ids of the rendered prompt (prefix and suffix included) with every image marker replaced by its image's kept tokens.
// Throws Error(EP_ERROR_INVALID_ARGUMENT) when the number of markers is not the number of images.
std::vector<Item> prompt_items(const Manifest& manifest, const Tokenizer& tokenizer, const PromptText& prompt,
                               const std::vector<ImageSlots>& images);

}  // namespace edgeprune
