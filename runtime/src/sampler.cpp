#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace edgeprune {

int32_t greedy(const std::vector<float>& logits) {
    if (logits.empty() || std::any_of(logits.begin(), logits.end(), [](float value) { return std::isnan(value); })) {
        throw Error(EP_ERROR_BACKEND, "the decoder's logits are not numbers: the weights or the graph are damaged");
    }
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace edgeprune
