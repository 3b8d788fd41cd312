#include "vision.h"

#include <algorithm>
#include <cmath>

#include "error.h"
#include "keep_count.h"

namespace edgeprune {
namespace {

// (1, N) float32.
std::vector<float> read_scores(const Model& model, const Tensor& scores) {
    if (scores.shape() != Shape{1, model.manifest().visual_tokens}) unexpected("scores", scores.shape());
    return to_floats(scores);
}

// The graph that gives out the kept tokens.
VisionResult run_last(const Model& model, const BoundGraph& graph, int64_t keep, RoleTensors inputs,
                      const std::vector<float>& padding, RunContext& context) {
    // A graph that keeps every token, and so has no keep_slots, has no use for the mask.
    const bool reads = graph.has_input("pad_mask");
    if (reads ? padding.empty() : !padding.empty() && graph.has_input("keep_slots")) {
        throw Error(EP_ERROR_BUNDLE, graph.spec().file + ": preprocess.pad_mask of manifest.json and the input " +
                                         "pad_mask of the graph belong together; export the bundle again");
    }
    if (reads) {
        const Shape shape{1, static_cast<int64_t>(padding.size())};
        inputs["pad_mask"] = from_floats(graph.backend(), DType::float32, shape, padding.data());
    }
    if (graph.has_input("keep_slots")) {
        const std::vector<float> slots(static_cast<size_t>(keep), 0.0f);
        inputs["keep_slots"] = from_floats(graph.backend(), DType::float32, {keep}, slots.data());
    }
    RoleTensors outputs = graph.run(inputs, context);

    const Tensor& embeds = *outputs.at("visual_embeds");
    const Tensor& kept = *outputs.at("keep_idx");
    if (embeds.shape().size() != 3 || embeds.shape()[0] != 1) unexpected("visual_embeds", embeds.shape());
    VisionResult result;
    result.kept = embeds.shape()[1];
    result.width = embeds.shape()[2];
    if (result.kept != keep) {
        throw Error(EP_ERROR_BACKEND, "the vision graph kept " + std::to_string(result.kept) + " tokens, but " +
                                          std::to_string(keep) + " were asked for");
    }
    if (kept.shape() != Shape{1, keep}) unexpected("keep_idx", kept.shape());
    const auto* indices = static_cast<const int64_t*>(kept.data());
    result.keep_idx.assign(indices, indices + keep);
    result.embeds = to_floats(embeds);
    const auto scores = outputs.find("scores");
    if (scores != outputs.end()) result.scores = read_scores(model, *scores->second);
    return result;
}

Encoded run_encode(const Model& model, const BoundGraph& graph, const TensorPtr& pixels, RunContext& context) {
    Encoded encoded{graph.run({{"pixel_values", pixels}}, context), {}};
    const auto scores = encoded.tensors.find("scores");
    if (scores != encoded.tensors.end()) encoded.scores = read_scores(model, *scores->second);
    return encoded;
}

VisionResult run_select(const Model& model, const BoundGraph& graph, int64_t keep, const Encoded& encoded,
                        const std::vector<float>& padding, const QuestionText& question, RunContext& context) {
    RoleTensors inputs = encoded.tensors;
    if (question.tokens > 0) {
        const auto width = static_cast<int64_t>(question.embeds.size()) / question.tokens;
        const std::vector<float> mask(static_cast<size_t>(question.tokens), 1.0f);
        const Backend& backend = graph.backend();
        inputs["text_embeds"] =
            from_floats(backend, DType::float32, {1, question.tokens, width}, question.embeds.data());
        inputs["text_mask"] = from_floats(backend, DType::float32, {1, question.tokens}, mask.data());
    }
    VisionResult result = run_last(model, graph, keep, std::move(inputs), padding, context);
    if (result.scores.empty()) result.scores = encoded.scores;
    return result;
}

// NaN has no order, so what a graph kept by it is arbitrary; Inf is what float16 makes of too large a number.
void require_finite(const std::vector<float>& values, const char* what, const std::string& method,
                    const BoundGraph& graph) {
    const auto bad = std::count_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
    if (bad == 0) return;
    throw Error(EP_ERROR_BACKEND, "method \"" + method + "\": " + std::to_string(bad) + " of " +
                                      std::to_string(values.size()) + " values of " + what + " that " +
                                      graph.spec().file +
                                      " made are NaN or Inf; use another method or a variant of higher precision");
}

void require_finite(const VisionResult& result, const std::string& method, const BoundGraph& graph) {
    require_finite(result.scores, "scores", method, graph);
    require_finite(result.embeds, "visual_embeds", method, graph);
}

// How many tokens of the default ratio a method keeps.
int64_t default_count(const Manifest& manifest, const MethodSpec& method) {
    return method.static_keep ? *method.static_keep : keep_count(manifest.visual_tokens, manifest.keep_default);
}

}  // namespace

void unexpected(const char* what, const Shape& shape) {
    throw Error(EP_ERROR_BACKEND, std::string(what) + " came out with the shape " + shape_text(shape));
}

TensorPtr pixel_tensor(const Model& model, const std::string& method, const Rgb& pixels) {
    const Shape shape{1, 3, pixels.height, pixels.width};
    const BoundGraph& graph = *model.vision(method).first;
    const Shape& wanted = graph.input("pixel_values").shape;
    for (size_t i = 0; i < shape.size(); ++i) {
        if (wanted[i] >= 0 && wanted[i] != shape[i]) {
            throw Error(EP_ERROR_BUNDLE, "the picture is " + shape_text(shape) +
                                             " after preprocessing, but the graph reads " + shape_text(wanted));
        }
    }
    TensorPtr tensor = graph.backend().new_tensor(DType::float32, shape);
    normalise(pixels, model.preprocess(), static_cast<float*>(tensor->mutable_data()));
    return tensor;
}

VisionResult encode_image(const Model& model, const std::string& method, int64_t keep, const TensorPtr& pixels,
                          const std::vector<float>& padding, RunContext& context) {
    const BoundGraph& graph = *model.vision(method).first;
    VisionResult result = run_last(model, graph, keep, {{"pixel_values", pixels}}, padding, context);
    require_finite(result, method, graph);
    return result;
}

Encoded encode_tokens(const Model& model, const std::string& method, const TensorPtr& pixels, RunContext& context) {
    const BoundGraph& graph = *model.vision(method).first;
    Encoded encoded = run_encode(model, graph, pixels, context);
    require_finite(encoded.scores, "scores", method, graph);
    return encoded;
}

VisionResult select_tokens(const Model& model, const std::string& method, int64_t keep, const Encoded& encoded,
                           const std::vector<float>& padding, const QuestionText& question, RunContext& context) {
    const BoundGraph& graph = *model.vision(method).select;
    VisionResult result = run_select(model, graph, keep, encoded, padding, question, context);
    require_finite(result, method, graph);
    return result;
}

void warm_up_vision(const Model& model, const MethodSpec& method, RunContext& context) {
    const VisionGraphs& graphs = model.vision(method.name);
    Shape shape = graphs.first->input("pixel_values").shape;
    if (shape[2] < 0 || shape[3] < 0) return;  // no size is more typical than another
    shape[0] = 1;
    shape[1] = 3;
    const std::vector<float> zeros(static_cast<size_t>(element_count(shape)), 0.0f);
    const TensorPtr pixels = from_floats(graphs.first->backend(), DType::float32, shape, zeros.data());
    const int64_t keep = default_count(model.manifest(), method);
    const bool masked = model.preprocess().mask_patch_px > 0;
    const std::vector<float> padding(masked ? static_cast<size_t>(model.manifest().visual_tokens) : 0, 0.0f);
    if (!graphs.select) {
        run_last(model, *graphs.first, keep, {{"pixel_values", pixels}}, padding, context);
        return;
    }
    QuestionText question;
    if (method.text) {
        question.tokens = 1;
        question.embeds.assign(static_cast<size_t>(graphs.select->input("text_embeds").shape[2]), 0.0f);
    }
    run_select(model, *graphs.select, keep, run_encode(model, *graphs.first, pixels, context), padding, question,
               context);
}

}  // namespace edgeprune
