// The operator edgeprune:CachedAttention for onnxruntime's CPU provider, version 1. B batch, H query heads, Hkv key
// heads, T new tokens, C places, d head width; positions int64, past and present float32 or float16, everything else
// float32.
//   in:  query (B,H,T,d), new_key and new_value (B,Hkv,T,d), past_key and past_value (B,Hkv,C,d), position_ids (B,T)
//   out: mixed (B,H,T,d), present_key and present_value (B,Hkv,C,d)
//   attribute: scale (float) of the logits
// Present is past with the new tokens written at their positions; where both are one memory nothing is copied. Each
// query sees the places up to its own position, and nothing behind the last of them is read. A new key or value that
// float16 cannot hold is refused where the cache is float16.
#pragma once

#include "ort_custom_op.h"

namespace edgeprune {

// onnxruntime takes the one whose types are those of the node.
ort::CustomOp cached_attention();
ort::CustomOp cached_attention_float16();

}  // namespace edgeprune
