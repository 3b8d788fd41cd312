// The operator edgeprune:EncoderAttention for onnxruntime's CPU provider, version 1. B batch, H heads of width d, T
// tokens that ask, S that are asked; every one of the T sees all of the S.
//   in:  query (B,T,H*d), key (B,S,H*d), value (B,S,H*d), float32
//   out: mixed (B,T,H*d) float32
//   attributes: heads (int), H; scale (float) of the logits; bfloat16 (int): 1 rounds scaled queries, keys, weights and
//   values to bfloat16 before they are multiplied, on every processor; sums are float32 either way
#pragma once

#include "ort_custom_op.h"

namespace edgeprune {

ort::CustomOp encoder_attention();

}  // namespace edgeprune
