// Which processor cores the threads of a model run on.
#pragma once

#include <string>
#include <vector>

namespace edgeprune {

// "2,3" -> {2, 3}; "" -> {}. Throws Error(EP_ERROR_INVALID_ARGUMENT): not such a list, a core twice, or one that this
// process must not use (onnxruntime would only log that and run elsewhere).
std::vector<int> parse_cores(const std::string& text);

}  // namespace edgeprune
