// The graph runs that turn a picture into kept visual tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model.h"

namespace edgeprune {

struct VisionResult {
    std::vector<float> embeds;  // (K, D)
    int64_t kept = 0, width = 0;
    std::vector<int64_t> keep_idx;  // (K)
    std::vector<float> scores;      // (N), empty when the method has none
};

// What the select graph of a method reads beside K and the question.
struct Encoded {
    RoleTensors tensors;        // tokens, signals and, where the question plays no part in them, scores
    std::vector<float> scores;  // (N), empty unless they are among the tensors
};

// Embeddings (M, D) of a question's tokens, or of its segments by a text encoder; M is 0 for methods that do not read
// it.
struct QuestionText {
    std::vector<float> embeds;
    int64_t tokens = 0;
};

// Preprocessed pixels, normalised, as the vision graphs of a method read them: (1, 3, height, width) float32.
// Throws Error(EP_ERROR_BUNDLE) when they read another size.
TensorPtr pixel_tensor(const Model& model, const std::string& method, const Rgb& pixels);

// Pixels and their padding_mask -> kept visual tokens, for methods of one graph. K is read from the executed tensors.
// Throws Error(EP_ERROR_BACKEND) when the graph kept another number than `keep`, or made scores or embeddings that are
// NaN or Inf.
VisionResult encode_image(const Model& model, const std::string& method, int64_t keep, const TensorPtr& pixels,
                          const std::vector<float>& padding, RunContext& context);

// The first graph of a method of two. Throws Error as encode_image does.
Encoded encode_tokens(const Model& model, const std::string& method, const TensorPtr& pixels, RunContext& context);
// The second. Throws Error as encode_image does.
VisionResult select_tokens(const Model& model, const std::string& method, int64_t keep, const Encoded& encoded,
                           const std::vector<float>& padding, const QuestionText& question, RunContext& context);

// Runs the vision graphs of a method once on zeros.
void warm_up_vision(const Model& model, const MethodSpec& method, RunContext& context);

// Throws Error(EP_ERROR_BACKEND) about the shape of an output.
[[noreturn]] void unexpected(const char* what, const Shape& shape);

}  // namespace edgeprune
