// Which of onnxruntime's execution providers runs the graphs, as the user names it.
#pragma once

#include <cstdint>
#include <string>

namespace edgeprune {

enum class ProviderKind { cpu, cuda, tensorrt };

struct ProviderChoice {
    ProviderKind kind = ProviderKind::cpu;
    int32_t device_id = 0;         // which GPU
    std::string engine_cache_dir;  // tensorrt: where engines are kept; "": they are built at every opening
    bool engine_fp16 = false;      // tensorrt: it may compute a float32 graph in float16
};

// "cuda".
const char* provider_name(ProviderKind kind);
// "CUDAExecutionProvider", as onnxruntime calls it.
const char* onnxruntime_provider(ProviderKind kind);
// Throws Error(EP_ERROR_INVALID_ARGUMENT) that names those there are.
ProviderKind read_provider(const std::string& name);

// The provider for the canonical graphs (no `variant`), or for a variant built for `target`. `asked`: "" for the one
// that goes with them. Throws Error(EP_ERROR_INVALID_ARGUMENT): the variant is for another provider, or `choice` has
// settings that the provider knows nothing of.
ProviderChoice choose_provider(ProviderChoice choice, const std::string& asked, const std::string& variant,
                               const std::string& target);

}  // namespace edgeprune
