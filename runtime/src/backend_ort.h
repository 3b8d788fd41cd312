// onnxruntime as a backend, with one of its execution providers.
#pragma once

#include <memory>
#include <string>

#include "backend.h"
#include "execution_provider.h"
#include "library_search.h"

namespace edgeprune {

// library: path of libonnxruntime, or "" to search; least: the oldest version the bundle runs on.
// Throws Error: EP_ERROR_RUNTIME_MISSING, EP_ERROR_PROVIDER.
std::unique_ptr<Backend> open_ort_backend(const std::string& library, Version least, const ProviderChoice& choice = {});

}  // namespace edgeprune
