// A bound on how deeply a JSON text nests. The JSON library walks its values by recursion (comparing, copying,
// printing), and so do we: a file of a hundred thousand brackets must not exhaust the stack of a robot's process.
#pragma once

#include <cstddef>
#include <string_view>

namespace edgeprune {

// Files of a bundle nest less than 15 levels.
constexpr size_t kMaxJsonDepth = 64;

// Whether arrays and objects nest deeper than kMaxJsonDepth. The text need not be JSON; brackets in strings count for
// nothing.
bool json_nests_too_deep(std::string_view text);

}  // namespace edgeprune
