// The operator edgeprune:MatMulInt8 for onnxruntime's CPU provider, version 1. K rows of the weights, N columns.
//   in:  x (...,K) float32, weights (panels,bytes) uint8, laid out as int8_product.h says, bias (N) or (0) float32
//   out: y (...,N) float32
//   attributes: columns (int), N; swish (float): not 0: a result y, bias included, becomes y / (1 + e^(-swish y))
// x is rounded to 8 bits, with a step and a zero for each row.
#pragma once

#include "ort_custom_op.h"

namespace edgeprune {

ort::CustomOp matmul_int8();

}  // namespace edgeprune
