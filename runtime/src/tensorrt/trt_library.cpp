#include "trt_library.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <new>
#include <vector>

#include "../error.h"
#include "cuda_api.h"

namespace edgeprune {
namespace {

// TensorRT-RTX counts its own versions; its headers are those of the same names with a smaller number.
constexpr bool kRtxHeaders = NV_TENSORRT_MAJOR < 5;

ep_log_level level_of(nvinfer1::ILogger::Severity severity) {
    switch (severity) {
        case nvinfer1::ILogger::Severity::kINTERNAL_ERROR:
        case nvinfer1::ILogger::Severity::kERROR:
            return EP_LOG_ERROR;
        case nvinfer1::ILogger::Severity::kWARNING:
            return EP_LOG_WARNING;
        case nvinfer1::ILogger::Severity::kINFO:
            return EP_LOG_INFO;
        default:
            return EP_LOG_DEBUG;
    }
}

std::string header_name() {
    return std::string(kRtxHeaders ? "TensorRT-RTX " : "TensorRT ") + std::to_string(NV_TENSORRT_MAJOR) + "." +
           std::to_string(NV_TENSORRT_MINOR);
}

// Whether the classes of the headers are laid out as the library's. Within a major version they only grow at their end;
// TensorRT 11 took functions out of the middle. TensorRT-RTX 1.7 was found to be laid out as TensorRT 11
// (docs/adr/0014); of its other releases nothing is known without their own headers.
bool described(bool rtx, int major, int minor) {
    if (rtx == kRtxHeaders) return major == NV_TENSORRT_MAJOR;
    return rtx && NV_TENSORRT_MAJOR == 11 && major == 1 && minor == 7;
}

std::vector<std::string> names_of(const EngineHost& host) {
    if (*host.library != '\0') return {host.library};
    if (std::string(host.module) == "tensorrt_rtx") return {"libtensorrt_rtx.so.1", "libtensorrt_rtx.so"};
    return {"libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR), "libnvinfer.so"};
}

template <class Function>
Function symbol(void* handle, const char* name) {
    void* found = dlsym(handle, name);
    if (found == nullptr) throw Error(EP_ERROR_RUNTIME_MISSING, std::string("TensorRT's library has no ") + name);
    return reinterpret_cast<Function>(found);
}

// A file in memory, read as the system likes: an engine may be larger than the memory that is free.
class Mapping {
public:
    explicit Mapping(const std::string& path) {
        const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        struct stat info{};
        if (file >= 0 && fstat(file, &info) == 0 && info.st_size > 0) {
            bytes_ = static_cast<size_t>(info.st_size);
            memory_ = mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file, 0);
        }
        if (file >= 0) close(file);
        if (memory_ == MAP_FAILED) throw Error(EP_ERROR_IO, "cannot read " + path);
    }
    ~Mapping() { munmap(memory_, bytes_); }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    const void* memory() const { return memory_; }
    size_t bytes() const { return bytes_; }

private:
    void* memory_ = MAP_FAILED;
    size_t bytes_ = 0;
};

}  // namespace

void TrtLog::log(Severity severity, const char* text) noexcept {
    try {
        std::string line = text == nullptr ? "" : text;
        for (char& c : line) c = c == '\n' ? ' ' : c;
        log_(level_of(severity), name_ + ": " + line);
        if (severity > Severity::kERROR) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        errors_ += (errors_.empty() ? "" : "; ") + line;
    } catch (const std::bad_alloc&) {
        // No memory for the line, and no exception may pass through TensorRT.
    }
}

std::string TrtLog::take_errors() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string errors;
    errors.swap(errors_);
    return errors.empty() ? "it gave no reason" : errors;
}

TrtLibrary::TrtLibrary(const EngineHost& host) : name_(engine_name(host.module)), log_(host) {
    void* handle = open(host);
    std::string version;
    for (const char* part : {"Major", "Minor", "Patch", "Build"}) {
        const std::string name = std::string("getInferLib") + part + "Version";
        version += (version.empty() ? "" : ".") + std::to_string(symbol<int32_t (*)()>(handle, name.c_str())());
    }
    version_ = name_ + " " + version;
    const auto major = symbol<int32_t (*)()>(handle, "getInferLibMajorVersion")();
    const auto minor = symbol<int32_t (*)()>(handle, "getInferLibMinorVersion")();
    const bool rtx = std::string(host.module) == "tensorrt_rtx";
    if (!described(rtx, major, minor)) {
        throw Error(EP_ERROR_RUNTIME_MISSING,
                    path_ + " is " + version_ + ", but libedgeprune_tensorrt.so was built with the headers of " +
                        header_name() + ": build it with those of this library (-DEDGEPRUNE_TENSORRT_INCLUDE=DIR)");
    }
    // The library compares a version of its own kind only.
    const auto asked = rtx == kRtxHeaders ? static_cast<int32_t>(NV_TENSORRT_VERSION)
                                          : symbol<int32_t (*)()>(handle, "getInferLibVersion")();
    const auto create = symbol<void* (*)(void*, int32_t)>(handle, "createInferRuntime_INTERNAL");
    runtime_.reset(static_cast<nvinfer1::IRuntime*>(create(&log_, asked)));
    if (!runtime_) throw Error(EP_ERROR_BACKEND, version_ + " makes no runtime: " + log_.take_errors());
}

// Never closed: it has threads and statics of its own.
void* TrtLibrary::open(const EngineHost& host) {
    std::string tried;
    for (const std::string& name : names_of(host)) {
        void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr) {
            const char* why = dlerror();
            tried += (tried.empty() ? "" : "; ") + std::string(why == nullptr ? name : why);
            continue;
        }
        Dl_info info{};
        void* known = dlsym(handle, "createInferRuntime_INTERNAL");
        path_ = known != nullptr && dladdr(known, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : name;
        return handle;
    }
    throw Error(EP_ERROR_RUNTIME_MISSING, "the variant's engines need the library of " + name_ + " (" + tried +
                                              "): install it, or point EDGEPRUNE_TENSORRT_LIB at it");
}

void TrtLibrary::fail(const std::string& file, const std::string& what) {
    throw Error(EP_ERROR_BACKEND, file + ": " + version_ + " " + what + ": " + log_.take_errors());
}

std::unique_ptr<nvinfer1::ICudaEngine> TrtLibrary::read_engine(const std::string& path) {
    const Mapping file(path);
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime_->deserializeCudaEngine(file.memory(), file.bytes()));
    if (engine) return engine;
    const std::string driver = cuda::Driver::missing();
    throw Error(EP_ERROR_BACKEND, path + ": " + version_ + " cannot read the engine: " + log_.take_errors() +
                                      (driver.empty() ? ""
                                                      : "; engines run on an NVIDIA GPU, and its driver is not "
                                                        "here: " +
                                                            driver));
}

}  // namespace edgeprune
