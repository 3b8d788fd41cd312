#include "engine_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "error.h"
#include "log.h"

namespace edgeprune {
namespace {

constexpr const char* kFile = "libedgeprune_tensorrt.so";

// The folder of the file that holds this code, with a slash; "" when the loader does not say.
std::string own_folder() {
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&open_engine_backend), &info) == 0 || info.dli_fname == nullptr) return "";
    const std::string path = info.dli_fname;
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

std::vector<std::string> candidates() {
    const char* named = std::getenv("EDGEPRUNE_TENSORRT_BACKEND");
    if (named != nullptr && *named != '\0') return {named};
    std::vector<std::string> paths;
    if (const std::string folder = own_folder(); !folder.empty()) paths.push_back(folder + kFile);
    paths.push_back(kFile);
    return paths;
}

// Never closed: TensorRT's own library cannot be unloaded once it was used.
EngineOpen load(const std::string& path) {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) throw Error(EP_ERROR_RUNTIME_MISSING, dlerror());
    const auto build = reinterpret_cast<EngineBuild>(dlsym(handle, kEngineBuildSymbol));
    const auto open = reinterpret_cast<EngineOpen>(dlsym(handle, kEngineOpenSymbol));
    if (build == nullptr || open == nullptr) {
        throw Error(EP_ERROR_RUNTIME_MISSING, path + ": it is no back end of edgeprune");
    }
    if (std::string(build()) == kEngineBuild) return open;
    throw Error(EP_ERROR_RUNTIME_MISSING, path + ": it is of " + build() + ", this library of " + kEngineBuild);
}

EngineOpen find(const std::string& module, const std::string& variant) {
    std::string tried;
    for (const std::string& path : candidates()) {
        try {
            return load(path);
        } catch (const Error& error) {
            tried += (tried.empty() ? "" : "; ") + std::string(error.what());
        }
    }
    throw Error(EP_ERROR_RUNTIME_MISSING,
                "variant \"" + variant + "\" holds " + engine_name(module) +
                    " engines, and the back end that runs them, " + kFile + ", is not here (" + tried +
                    "): build edgeprune where NvInfer.h is found (libnvinfer-dev " +
                    "of JetPack, or -DEDGEPRUNE_TENSORRT_INCLUDE=DIR), or open the bundle without a variant");
}

}  // namespace

std::string named_tensorrt_library(const std::string& module) {
    const char* named = std::getenv("EDGEPRUNE_TENSORRT_LIB");
    const std::string path = named == nullptr ? "" : named;
    const bool rtx =
        path.find("tensorrt_rtx", path.rfind('/') == std::string::npos ? 0 : path.rfind('/')) != std::string::npos;
    return !path.empty() && rtx == (module == "tensorrt_rtx") ? path : "";
}

std::unique_ptr<Backend> open_engine_backend(const std::string& module, const std::string& variant) {
    const EngineOpen open = find(module, variant);
    const std::string library = named_tensorrt_library(module);
    const EngineHost host{module.c_str(), library.c_str(), log};
    return std::unique_ptr<Backend>(open(host));
}

}  // namespace edgeprune
