#include "stages.h"

#include <algorithm>

#include "error.h"
#include "text_encoder.h"
#include "vision.h"

namespace edgeprune {
namespace {

TensorPtr integers(const Backend& backend, const Shape& shape, int64_t first, int64_t step) {
    TensorPtr tensor = backend.new_tensor(DType::int64, shape);
    auto* values = static_cast<int64_t*>(tensor->mutable_data());
    for (int64_t i = 0; i < element_count(shape); ++i) values[i] = first + i * step;
    return tensor;
}

}  // namespace

std::vector<float> embed_tokens(const Model& model, const std::vector<int32_t>& ids, RunContext& context) {
    if (ids.empty()) return {};
    const auto count = static_cast<int64_t>(ids.size());
    TensorPtr input = model.embedding().backend().new_tensor(DType::int64, {1, count});
    std::copy(ids.begin(), ids.end(), static_cast<int64_t*>(input->mutable_data()));
    const RoleTensors outputs = model.embedding().run({{"input_ids", input}}, context);
    const Tensor& embeds = *outputs.at("inputs_embeds");
    if (embeds.shape().size() != 3 || embeds.shape()[0] != 1 || embeds.shape()[1] != count) {
        unexpected("inputs_embeds", embeds.shape());
    }
    return to_floats(embeds);
}

std::vector<float> run_decoder(const BoundGraph& decoder, const std::vector<Item>& items,
                               const std::vector<float>& embeds, KvCache& cache, RunContext& context) {
    const auto count = static_cast<int64_t>(items.size());
    const int64_t past = cache.length();
    const auto width = static_cast<int64_t>(embeds.size()) / count;
    const Backend& backend = decoder.backend();
    const DType dtype = decoder.input("inputs_embeds").dtype;
    RoleTensors inputs{{"inputs_embeds", from_floats(backend, dtype, {1, count, width}, embeds.data())},
                       {"position_ids", integers(backend, {1, count}, past, 1)},
                       {"attention_mask", integers(backend, {1, past + count}, 1, 0)}};
    const RoleTensors memory = cache.room_for(count);
    cache.bind(inputs);
    const RoleTensors outputs = decoder.run(inputs, context, memory);
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
    KvCache cache(model.decoder().backend(), *model.manifest().decoder.kv);
    const std::vector<float> embeds = embed_tokens(model, ids, never);
    run_decoder(model.decoder(), items, embeds, cache, never);
    run_decoder(model.decoder_step(), items, embeds, cache, never);
    for (const auto& [name, method] : model.manifest().methods) {
        warm_up_vision(model, method, never);
    }
    if (model.manifest().text) run_text_encoder(model, ids, never);
}

}  // namespace edgeprune
