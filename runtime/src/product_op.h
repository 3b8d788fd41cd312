// The operator edgeprune:MatMulInt4 for onnxruntime's CPU provider, version 1. K rows of the weights, N columns.
//   in:  x (...,K) float32, weights (tiles,bytes) uint8, laid out as product_kernel.h says
//   out: y (...,N) float32
//   attribute: columns (int), N
// x is rounded to 8 bits, with a scale for each block of 32.
#pragma once

#include "ort_custom_op.h"

namespace edgeprune {

ort::CustomOp matmul_int4();

}  // namespace edgeprune
