#include "machine_facts.h"

#include <dlfcn.h>

#include <fstream>
#include <map>
#include <vector>

#include "engine_library.h"

namespace edgeprune {
namespace {

// CUdevice_attribute of the driver's API; both numbers are part of its ABI.
constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;

// Never closed: neither library can be unloaded safely once it was used.
void* open_first(const std::vector<const char*>& names) {
    for (const char* name : names) {
        if (void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return handle;
    }
    return nullptr;
}

template <typename Function>
Function symbol(void* handle, const char* name) {
    return reinterpret_cast<Function>(dlsym(handle, name));
}

}  // namespace

std::optional<std::string> compute_capability() {
    void* cuda = open_first({"libcuda.so.1"});
    if (cuda == nullptr) return std::nullopt;
    const auto init = symbol<int (*)(unsigned)>(cuda, "cuInit");
    const auto device_get = symbol<int (*)(int*, int)>(cuda, "cuDeviceGet");
    const auto attribute = symbol<int (*)(int*, int, int)>(cuda, "cuDeviceGetAttribute");
    if (init == nullptr || device_get == nullptr || attribute == nullptr) return std::nullopt;
    int device = 0, major = 0, minor = 0;
    if (init(0) != 0 || device_get(&device, 0) != 0) return std::nullopt;
    if (attribute(&major, kCapabilityMajor, device) != 0 || attribute(&minor, kCapabilityMinor, device) != 0) {
        return std::nullopt;
    }
    return std::to_string(major) + "." + std::to_string(minor);
}

std::optional<std::string> tensorrt_version(const std::string& module) {
    static const std::map<std::string, std::vector<const char*>> kNames = {
        {"tensorrt", {"libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so"}},
        {"tensorrt_rtx", {"libtensorrt_rtx.so.1", "libtensorrt_rtx.so"}},
    };
    const auto names = kNames.find(module);
    if (names == kNames.end()) return std::nullopt;
    const std::string named = named_tensorrt_library(module);
    void* library = open_first(named.empty() ? names->second : std::vector<const char*>{named.c_str()});
    if (library == nullptr) return std::nullopt;
    std::string text;
    for (const char* part : {"Major", "Minor", "Patch", "Build"}) {
        const std::string name = std::string("getInferLib") + part + "Version";
        const auto version = symbol<int (*)()>(library, name.c_str());
        if (version == nullptr) return std::nullopt;
        text += (text.empty() ? "" : ".") + std::to_string(version());
    }
    return text;
}

std::optional<std::string> jetpack() {
    std::ifstream file("/etc/nv_tegra_release");
    std::string line;
    if (!file || !std::getline(file, line)) return std::nullopt;
    const size_t end = line.find_last_not_of(" \t\r");
    return end == std::string::npos ? std::nullopt : std::optional<std::string>(line.substr(0, end + 1));
}

}  // namespace edgeprune
