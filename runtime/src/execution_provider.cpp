#include "execution_provider.h"

#include <array>

#include "error.h"

namespace edgeprune {
namespace {

struct Row {
    ProviderKind kind;
    const char* name;
    const char* onnxruntime;
};

constexpr std::array<Row, 3> kProviders{{{ProviderKind::cpu, "cpu", "CPUExecutionProvider"},
                                         {ProviderKind::cuda, "cuda", "CUDAExecutionProvider"},
                                         {ProviderKind::tensorrt, "tensorrt", "TensorrtExecutionProvider"}}};

const Row& row(ProviderKind kind) {
    for (const Row& known : kProviders) {
        if (known.kind == kind) return known;
    }
    throw Error(EP_ERROR_INTERNAL, "unknown execution provider");
}

// Settings that would change nothing are refused rather than ignored.
void check_settings(const ProviderChoice& choice) {
    const std::string name = provider_name(choice.kind);
    const auto fail = [&name](const std::string& what, const char* where) {
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    what + ", but the provider is " + name + ": leave it out, or choose the provider " + where);
    };
    if (choice.device_id < 0) {
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    "device_id is " + std::to_string(choice.device_id) + ", but must be at least 0");
    }
    if (choice.kind == ProviderKind::cpu && choice.device_id != 0) {
        fail("device_id is " + std::to_string(choice.device_id), "cuda or tensorrt");
    }
    if (choice.kind == ProviderKind::tensorrt) return;
    if (!choice.engine_cache_dir.empty()) fail("engine_cache_dir is set", "tensorrt");
    if (choice.engine_fp16) fail("engine_fp16 is set", "tensorrt");
}

}  // namespace

const char* provider_name(ProviderKind kind) {
    return row(kind).name;
}

const char* onnxruntime_provider(ProviderKind kind) {
    return row(kind).onnxruntime;
}

ProviderKind read_provider(const std::string& name) {
    std::string known;
    for (const Row& row : kProviders) {
        if (name == row.name) return row.kind;
        known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
    throw Error(EP_ERROR_INVALID_ARGUMENT, "there is no provider \"" + name + "\"; there are: " + known);
}

ProviderChoice choose_provider(ProviderChoice choice, const std::string& asked, const std::string& variant,
                               const std::string& target) {
    const bool for_cpu = !variant.empty() && target != "cuda";
    if (asked.empty()) {
        choice.kind = target == "cuda" ? ProviderKind::cuda : ProviderKind::cpu;
    } else {
        choice.kind = read_provider(asked);
    }
    if (for_cpu && choice.kind != ProviderKind::cpu) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "variant \"" + variant + "\" is built for the target " + target +
                                                   ", not for the provider " + provider_name(choice.kind) +
                                                   ": open one that `edgeprune build --target cuda` made, or none");
    }
    check_settings(choice);
    return choice;
}

}  // namespace edgeprune
