#include "library_search.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "error.h"
#include "log.h"
#include "ort_provider_api.h"
#include "own_operators.h"

namespace edgeprune {
namespace {

constexpr Version kLeastVersion{1, 17};
constexpr Version kPlacementVersion{1, 24};

struct Close {
    void operator()(void* handle) const { dlclose(handle); }
};
using Handle = std::unique_ptr<void, Close>;

struct Candidate {
    std::string path;
    std::string origin;  // who named it
};

std::vector<Candidate> candidates(const std::string& option) {
    if (!option.empty()) return {{option, "option onnxruntime_library"}};
    const char* variable = std::getenv("EDGEPRUNE_ORT_LIB");
    if (variable != nullptr && *variable != '\0') return {{variable, "EDGEPRUNE_ORT_LIB"}};
    return {{"libonnxruntime.so.1", "loader path"}, {"libonnxruntime.so", "loader path"}};
}

std::string tried_text(const std::string& option, const std::vector<std::string>& tried) {
    std::string text = "no usable onnxruntime library: tried ";
    for (size_t i = 0; i < tried.size(); ++i) text += (i > 0 ? "; " : "") + tried[i];
    if (option.empty() && tried.size() > 1)
        text += "; the option onnxruntime_library and EDGEPRUNE_ORT_LIB are not set";
    return text + ". Install onnxruntime, or point EDGEPRUNE_ORT_LIB at libonnxruntime.so";
}

ep_log_level level_of(int32_t severity) {
    if (severity >= ort::kLogError) return EP_LOG_ERROR;
    return static_cast<ep_log_level>(std::max(severity, 0));
}

void forward_log(void*, int32_t severity, const char* category, const char*, const char* location,
                 const char* message) {
    const auto text = [](const char* part) { return std::string(part == nullptr ? "" : part); };
    try {
        log(level_of(severity), "onnxruntime " + text(category) + " " + text(location) + ": " + text(message));
    } catch (const std::bad_alloc&) {
        // No memory for the line, and no exception may pass through onnxruntime.
    }
}

// From 1.29 on the official Linux builds collect telemetry: they write a device id and a database below the home
// directory and upload them. DisableTelemetryEvents comes after the first event, so only this variable, read when the
// library starts, keeps it from ever beginning.
void switch_off_telemetry() {
    constexpr const char* kSwitch = "ORT_DISABLE_TELEMETRY";
    const char* now = std::getenv(kSwitch);
    if (now == nullptr || std::string(now) != "1") setenv(kSwitch, "1", /*overwrite=*/1);
}

std::string mapped_path(const void* symbol, const std::string& asked) {
    Dl_info info{};
    return dladdr(symbol, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : asked;
}

// Its environment and our operators.
void start(OrtLibrary& library) {
    const ort::Api& api = library.api;
    ort::Env* env = nullptr;
    ort::Status* status = own_operators(library.table, &library.operators);
    if (status == nullptr) {
        status = api.create_env_with_logger(forward_log, nullptr, log_level(), "edgeprune", &env);
    }
    if (status == nullptr) status = api.disable_telemetry(env);
    if (status != nullptr) {
        const std::string text = api.error_message(status);
        api.release_status(status);
        throw Error(EP_ERROR_BACKEND, "onnxruntime could not start: " + text);
    }
    library.env = env;
}

// Libraries by loader handle: the loader gives the same handle for the same file.
struct Registry {
    std::mutex mutex;
    std::map<void*, std::unique_ptr<OrtLibrary>> libraries;
};

// Never destroyed: onnxruntime's own threads and statics may outlive ours when the process ends.
Registry& registry() {
    static Registry* const instance = std::make_unique<Registry>().release();
    return *instance;
}

std::string version_text(const Version& version) {
    return std::to_string(version.major) + "." + std::to_string(version.minor);
}

// Why `base` cannot serve; empty when it can.
std::string objection(const ort::ApiBase& base, Version least) {
    const std::string version = base.version_string();
    const std::optional<Version> found = read_version(version);
    if (!found) return "\"" + version + "\" is not a version number";
    if (*found < least) return "version " + version + " is older than " + version_text(least);
    if (base.get_api(ort::kApiVersion) == nullptr) return "version " + version + " does not offer its interface 17";
    return "";
}

// Registered before its environment is made: that starts threads, and such a library must not be closed again.
OrtLibrary& registered(Handle handle, const ort::ApiBase& base, std::string path) {
    auto& libraries = registry().libraries;
    const auto found = libraries.find(handle.get());
    if (found != libraries.end()) return *found->second;
    const ort::Slot* table = base.get_api(ort::kApiVersion);
    auto library =
        std::make_unique<OrtLibrary>(OrtLibrary{std::move(path), base.version_string(), ort::Api(table), table});
    // Older ones would write to stderr when asked.
    if (!(*read_version(library->version) < kPlacementVersion)) {
        library->placement_table = base.get_api(ort::kPlacementApiVersion);
    }
    OrtLibrary& added = *libraries.emplace(handle.get(), std::move(library)).first->second;
    static_cast<void>(handle.release());  // never closed
    return added;
}

const OrtLibrary& load(const std::string& path, Version least) {
    switch_off_telemetry();
    Handle handle(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (!handle) throw Error(EP_ERROR_RUNTIME_MISSING, dlerror());
    void* const symbol = dlsym(handle.get(), "OrtGetApiBase");
    if (symbol == nullptr) throw Error(EP_ERROR_RUNTIME_MISSING, "it has no OrtGetApiBase");
    const ort::ApiBase* base = reinterpret_cast<const ort::ApiBase* (*)()>(symbol)();
    const std::string reason = objection(*base, least);
    if (!reason.empty()) throw Error(EP_ERROR_RUNTIME_MISSING, reason);

    OrtLibrary& library = registered(std::move(handle), *base, mapped_path(symbol, path));
    if (library.env == nullptr) {
        log(EP_LOG_INFO, "onnxruntime " + library.version + " from " + library.path);
        start(library);
    }
    return library;
}

}  // namespace

std::optional<Version> read_version(const std::string& text) {
    Version version;
    if (std::sscanf(text.c_str(), "%d.%d", &version.major, &version.minor) != 2) return std::nullopt;
    return version;
}

bool operator<(const Version& a, const Version& b) {
    return std::make_pair(a.major, a.minor) < std::make_pair(b.major, b.minor);
}

const OrtLibrary& open_onnxruntime(const std::string& option, Version least) {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    std::vector<std::string> tried;
    for (const Candidate& candidate : candidates(option)) {
        try {
            return load(candidate.path, std::max(least, kLeastVersion));
        } catch (const Error& error) {
            if (error.status() != EP_ERROR_RUNTIME_MISSING) throw;
            tried.push_back(candidate.path + " (" + candidate.origin + ": " + error.what() + ")");
        }
    }
    throw Error(EP_ERROR_RUNTIME_MISSING, tried_text(option, tried));
}

}  // namespace edgeprune
