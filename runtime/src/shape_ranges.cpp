#include "shape_ranges.h"

#include <algorithm>

#include "error.h"
#include "keep_count.h"

namespace edgeprune {
namespace {

// What engines are tuned for; other lengths run too. The same as engines/shapes.py.
constexpr int64_t kUsualText = 64;
constexpr int64_t kUsualQuestion = 16;

struct Span {
    int64_t least = 1, usual = 1, most = 1;
};

Span kept_tokens(const Manifest& manifest, const MethodSpec* method) {
    const auto count = [&manifest](double ratio) { return keep_count(manifest.visual_tokens, ratio); };
    Span span{count(manifest.keep_min), count(manifest.keep_default), count(manifest.keep_max)};
    if (manifest.preprocess.mask_patch_px > 0) span.least = 1;  // a letter-box may leave less than was asked for
    if (method == nullptr || method->keep_counts.empty()) return span;
    span.least = method->keep_counts.front().first;
    span.most = method->keep_counts.front().last;
    for (const CountRun& run : method->keep_counts) {
        span.least = std::min(span.least, run.first);
        span.most = std::max(span.most, run.last);
    }
    span.usual = std::clamp(span.usual, span.least, span.most);
    return span;
}

class Ranges {
public:
    Ranges(const Manifest& manifest, const MethodSpec* method)
        : context_(manifest.context_length), kept_(kept_tokens(manifest, method)) {}

    // Of a free dimension of an input. Everything runs for one view and one conversation.
    Span of(const TensorSpec& tensor, size_t dimension) const {
        const std::string& role = tensor.role;
        if (role == "keep_slots") return kept_;
        if (dimension == 0) return {};
        const int64_t usual = std::min(kept_.usual + kUsualText, context_);
        if (dimension == 1) {
            if (role == "input_ids" || role == "inputs_embeds" || role == "position_ids") return {1, usual, context_};
            // A new position after a full cache: no request has as many, but past and new have to agree at the end.
            if (role == "attention_mask") return {1, usual, 2 * context_ - 1};
            if (role == "text_embeds" || role == "text_mask") return {1, std::min(kUsualQuestion, context_), context_};
        }
        if (dimension == 2 && role.rfind("past_", 0) == 0) return {0, 0, context_ - 1};
        throw Error(EP_ERROR_UNSUPPORTED, "nothing bounds dimension " + std::to_string(dimension) + " of \"" +
                                              tensor.name + "\", so the provider tensorrt cannot take it; choose cuda");
    }

private:
    int64_t context_;
    Span kept_;
};

}  // namespace

std::vector<InputRange> input_ranges(const Manifest& manifest, const GraphSpec& graph, const MethodSpec* method) {
    const Ranges ranges(manifest, method);
    std::vector<InputRange> found;
    for (const TensorSpec& tensor : graph.inputs) {
        if (std::count(tensor.shape.begin(), tensor.shape.end(), -1) == 0) continue;
        InputRange range{tensor.name, {}, {}, {}};
        for (size_t i = 0; i < tensor.shape.size(); ++i) {
            const int64_t size = tensor.shape[i];
            const Span span = size >= 0 ? Span{size, size, size} : ranges.of(tensor, i);
            range.least.push_back(span.least);
            range.usual.push_back(span.usual);
            range.most.push_back(span.most);
        }
        found.push_back(std::move(range));
    }
    return found;
}

}  // namespace edgeprune
