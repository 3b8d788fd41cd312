// The operators that libedgeprune brings to onnxruntime's CPU provider, all in the domain "edgeprune".
#pragma once

#include "ort_custom_op.h"

namespace edgeprune {

// The domain with the operators, one per table of onnxruntime, kept for ever: sessions hold on to it.
// A failure is onnxruntime's status, which the caller owns; null: none. Throws std::bad_alloc.
ort::Status* own_operators(const ort::Slot* api, ort::CustomOpDomain** domain);

}  // namespace edgeprune
