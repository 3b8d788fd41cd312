#include "stages.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "error.h"
#include "keep_count.h"

namespace edgeprune {
namespace {

[[noreturn]] void unexpected(const char* what, const Shape& shape) {
    throw Error(EP_ERROR_BACKEND, std::string(what) + " came out with the shape " + shape_text(shape));
}

TensorPtr integers(const Backend& backend, const Shape& shape, int64_t first, int64_t step) {
    TensorPtr tensor = backend.new_tensor(DType::int64, shape);
    auto* values = static_cast<int64_t*>(tensor->mutable_data());
    for (int64_t i = 0; i < element_count(shape); ++i) values[i] = first + i * step;
    return tensor;
}

VisionResult run_vision(const Model& model, const BoundGraph& graph, int64_t keep, const TensorPtr& pixels,
                        const std::vector<float>& padding, RunContext& context) {
    RoleTensors inputs{{"pixel_values", pixels}};
    // A graph that keeps every token, and so has no keep_slots, has no use for the mask.
    const bool reads = graph.has_input("pad_mask");
    if (reads ? padding.empty() : !padding.empty() && graph.has_input("keep_slots")) {
        throw Error(EP_ERROR_BUNDLE, graph.spec().file + ": preprocess.pad_mask of manifest.json and the input " +
                                         "pad_mask of the graph belong together; export the bundle again");
    }
    if (reads) {
        const Shape shape{1, static_cast<int64_t>(padding.size())};
        inputs["pad_mask"] = from_floats(model.backend(), DType::float32, shape, padding.data());
    }
    if (graph.has_input("keep_slots")) {
        const std::vector<float> slots(static_cast<size_t>(keep), 0.0f);
        inputs["keep_slots"] = from_floats(model.backend(), DType::float32, {keep}, slots.data());
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
    if (scores != outputs.end()) {
        const Shape expected{1, model.manifest().visual_tokens};
        if (scores->second->shape() != expected) unexpected("scores", scores->second->shape());
        result.scores = to_floats(*scores->second);
    }
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

// How many tokens of the default ratio a method keeps.
int64_t default_count(const Manifest& manifest, const MethodSpec& method) {
    return method.static_keep ? *method.static_keep : keep_count(manifest.visual_tokens, manifest.keep_default);
}

void warm_up_vision(const Model& model, const MethodSpec& method, RunContext& context) {
    const BoundGraph& graph = model.vision(method.name);
    Shape shape = graph.input("pixel_values").shape;
    if (shape[2] < 0 || shape[3] < 0) return;  // no size is more typical than another
    shape[0] = 1;
    shape[1] = 3;
    const std::vector<float> zeros(static_cast<size_t>(element_count(shape)), 0.0f);
    const TensorPtr pixels = from_floats(model.backend(), DType::float32, shape, zeros.data());
    const bool masked = model.preprocess().mask_patch_px > 0;
    const std::vector<float> padding(masked ? static_cast<size_t>(model.manifest().visual_tokens) : 0, 0.0f);
    run_vision(model, graph, default_count(model.manifest(), method), pixels, padding, context);
}

}  // namespace

TensorPtr pixel_tensor(const Model& model, const std::string& method, const Rgb& pixels) {
    const Shape shape{1, 3, pixels.height, pixels.width};
    const Shape& wanted = model.vision(method).input("pixel_values").shape;
    for (size_t i = 0; i < shape.size(); ++i) {
        if (wanted[i] >= 0 && wanted[i] != shape[i]) {
            throw Error(EP_ERROR_BUNDLE, "the picture is " + shape_text(shape) +
                                             " after preprocessing, but the graph reads " + shape_text(wanted));
        }
    }
    TensorPtr tensor = model.backend().new_tensor(DType::float32, shape);
    normalise(pixels, model.preprocess(), static_cast<float*>(tensor->mutable_data()));
    return tensor;
}

VisionResult encode_image(const Model& model, const std::string& method, int64_t keep, const TensorPtr& pixels,
                          const std::vector<float>& padding, RunContext& context) {
    const BoundGraph& graph = model.vision(method);
    VisionResult result = run_vision(model, graph, keep, pixels, padding, context);
    require_finite(result.scores, "scores", method, graph);
    require_finite(result.embeds, "visual_embeds", method, graph);
    return result;
}

std::vector<float> embed_tokens(const Model& model, const std::vector<int32_t>& ids, RunContext& context) {
    if (ids.empty()) return {};
    const auto count = static_cast<int64_t>(ids.size());
    TensorPtr input = model.backend().new_tensor(DType::int64, {1, count});
    std::copy(ids.begin(), ids.end(), static_cast<int64_t*>(input->mutable_data()));
    const RoleTensors outputs = model.embedding().run({{"input_ids", input}}, context);
    const Tensor& embeds = *outputs.at("inputs_embeds");
    if (embeds.shape().size() != 3 || embeds.shape()[0] != 1 || embeds.shape()[1] != count) {
        unexpected("inputs_embeds", embeds.shape());
    }
    return to_floats(embeds);
}

std::vector<float> run_decoder(const Model& model, const std::vector<Item>& items, const std::vector<float>& embeds,
                               KvCache& cache, RunContext& context) {
    const auto count = static_cast<int64_t>(items.size());
    const int64_t past = cache.length();
    const auto width = static_cast<int64_t>(embeds.size()) / count;
    const Backend& backend = model.backend();
    const DType dtype = model.decoder().input("inputs_embeds").dtype;
    RoleTensors inputs{{"inputs_embeds", from_floats(backend, dtype, {1, count, width}, embeds.data())},
                       {"position_ids", integers(backend, {1, count}, past, 1)},
                       {"attention_mask", integers(backend, {1, past + count}, 1, 0)}};
    cache.bind(inputs);
    const RoleTensors outputs = model.decoder().run(inputs, context);
    const Tensor& logits = *outputs.at("logits");
    if (logits.shape().size() != 3 || logits.shape()[0] != 1 || logits.shape()[1] != 1)
        unexpected("logits", logits.shape());
    cache.take(outputs, items);
    return to_floats(logits);
}

void warm_up(const Model& model) {
    Abort nobody;
    RunContext never{nobody};
    const std::vector<int32_t> ids{0};
    const std::vector<Item> items{{0, -1, -1}};
    KvCache cache(model.backend(), *model.manifest().decoder.kv);
    const std::vector<float> embeds = embed_tokens(model, ids, never);
    run_decoder(model, items, embeds, cache, never);
    run_decoder(model, items, embeds, cache, never);
    for (const auto& [name, method] : model.manifest().methods) {
        if (!method.text) warm_up_vision(model, method, never);
    }
}

}  // namespace edgeprune
