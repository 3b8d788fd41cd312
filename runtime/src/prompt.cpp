#include "prompt.h"

#include <algorithm>

#include "error.h"

namespace edgeprune {
namespace {

void append_images(const PromptSegment& segment, const std::string& marker, size_t count, std::string& text) {
    for (size_t i = 0; i < count; ++i) text += segment.before + marker + segment.after;
}

void append_image(const ImageSlots& image, std::vector<Item>& items) {
    for (int64_t slot = 0; slot < image.kept; ++slot) items.push_back({-1, image.image, static_cast<int32_t>(slot)});
}

}  // namespace

PromptText render_prompt(const Manifest& manifest, const std::string& question, size_t image_count,
                         bool allow_special) {
    PromptText prompt;
    for (const PromptSegment& segment : manifest.prompt) {
        switch (segment.kind) {
            case PromptSegment::Kind::text:
                prompt.text += segment.text;
                break;
            case PromptSegment::Kind::images:
                append_images(segment, manifest.tokens.image_marker, image_count, prompt.text);
                break;
            case PromptSegment::Kind::question: {
                const size_t begin = prompt.text.size();
                prompt.text += question;
                if (!allow_special) prompt.plain.push_back({begin, prompt.text.size()});
                break;
            }
        }
    }
    return prompt;
}

std::vector<Item> prompt_items(const Manifest& manifest, const Tokenizer& tokenizer, const PromptText& prompt,
                               const std::vector<ImageSlots>& images) {
    const TokenSpec& tokens = manifest.tokens;
    std::vector<int32_t> ids = tokens.prefix;
    const std::vector<int32_t> encoded = tokenizer.encode(prompt.text, prompt.plain);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    ids.insert(ids.end(), tokens.suffix.begin(), tokens.suffix.end());

    const auto markers = static_cast<size_t>(std::count(ids.begin(), ids.end(), tokens.image));
    if (markers != images.size()) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "the prompt has " + std::to_string(markers) +
                                                   " places for images, but " + std::to_string(images.size()) +
                                                   " images were given");
    }
    std::vector<Item> items;
    size_t next = 0;
    for (const int32_t id : ids) {
        if (id == tokens.image) {
            append_image(images[next++], items);
        } else {
            items.push_back({id, -1, -1});
        }
    }
    if (items.empty()) throw Error(EP_ERROR_INVALID_ARGUMENT, "the prompt is empty");
    return items;
}

}  // namespace edgeprune
