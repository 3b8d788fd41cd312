// The operator edgeprune:RotaryAttention for onnxruntime's CPU provider, version 1: CachedAttention (attention_op.h) as
// the decoder's products leave and take its rows. B batch, H query heads, Hkv key heads, T new tokens, C places, d head
// width; positions int64, past and present float32 or float16, everything else float32.
//   in:  query (B,T,H*d), new_key and new_value (B,T,Hkv*d), cosines and sines (B,1,T,d/2), past_key and past_value
//        (B,Hkv,C,d), position_ids (B,T)
//   out: mixed (B,T,H*d), present_key and present_value (B,Hkv,C,d)
//   attribute: scale (float) of the logits
// Queries and new keys are rotated first, half against half: (a cos - b sin, b cos + a sin).
#pragma once

#include "ort_custom_op.h"

namespace edgeprune {

// onnxruntime takes the one whose types are those of the node.
ort::CustomOp rotary_attention();
ort::CustomOp rotary_attention_float16();

}  // namespace edgeprune
