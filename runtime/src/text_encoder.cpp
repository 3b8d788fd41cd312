#include "text_encoder.h"

#include <algorithm>

#include "error.h"

namespace edgeprune {

std::vector<int32_t> with_affixes(const TextEncoderSpec& encoder, const std::vector<int32_t>& ids) {
    std::vector<int32_t> whole = encoder.prefix;
    whole.insert(whole.end(), ids.begin(), ids.end());
    whole.insert(whole.end(), encoder.suffix.begin(), encoder.suffix.end());
    return whole;
}

// The last segment is filled with id 0, which changes nothing: a text encoder is causal and answers for an id of the
// question. A question that fits one segment is not filled at all.
QuestionText run_text_encoder(const Model& model, const std::vector<int32_t>& ids, RunContext& context) {
    const auto count = static_cast<int64_t>(ids.size());
    const int64_t most = model.manifest().text_encoder->segment_tokens;
    const int64_t rows = (count + most - 1) / most;
    const BoundGraph& graph = *model.text_encoder().graph;
    TensorPtr input = graph.backend().new_tensor(DType::int64, {rows, std::min(count, most)});
    auto* values = static_cast<int64_t*>(input->mutable_data());
    std::fill_n(values, element_count(input->shape()), int64_t{0});
    std::copy(ids.begin(), ids.end(), values);
    const RoleTensors outputs = graph.run({{"input_ids", input}}, context);
    const Tensor& embeds = *outputs.at("text_embeds");
    if (embeds.shape().size() != 2 || embeds.shape()[0] != rows) unexpected("text_embeds", embeds.shape());
    return {to_floats(embeds), rows};
}

}  // namespace edgeprune
