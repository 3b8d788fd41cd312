// Choosing the next token.
#pragma once

#include <cstdint>
#include <vector>

namespace edgeprune {

// Index of the largest logit, the first of equals.
// Throws Error(EP_ERROR_BACKEND) when a logit is not a number, for then the graph has failed.
int32_t greedy(const std::vector<float>& logits);

}  // namespace edgeprune
