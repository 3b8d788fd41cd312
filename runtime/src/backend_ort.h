// onnxruntime as a backend, CPU execution provider.
#pragma once

#include <memory>
#include <string>

#include "backend.h"
#include "library_search.h"

namespace edgeprune {

// library: path of libonnxruntime, or "" to search; least: the oldest version the bundle runs on.
std::unique_ptr<Backend> open_ort_backend(const std::string& library, Version least);

}  // namespace edgeprune
