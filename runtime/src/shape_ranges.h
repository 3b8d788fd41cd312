// Which shapes the inputs of a graph may have in any request, for engines that are built for a range.
#pragma once

#include <vector>

#include "backend.h"
#include "manifest.h"

namespace edgeprune {

// One entry per input with a free dimension. `method`: of a vision graph, else null.
// Throws Error(EP_ERROR_UNSUPPORTED) where nothing bounds a dimension.
std::vector<InputRange> input_ranges(const Manifest& manifest, const GraphSpec& graph, const MethodSpec* method);

}  // namespace edgeprune
