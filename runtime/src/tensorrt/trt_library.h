// TensorRT's or TensorRT-RTX's library, opened at run time; both have the C++ interface of NvInferRuntime.h.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <mutex>
#include <string>

#include "../engine_library.h"

namespace edgeprune {

// Passes on what the library says, and keeps its errors for the sentence that will be thrown.
class TrtLog final : public nvinfer1::ILogger {
public:
    explicit TrtLog(const EngineHost& host) : name_(engine_name(host.module)), log_(host.log) {}
    void log(Severity severity, const char* text) noexcept override;
    // The errors since the last call, on one line; "it gave no reason" when there are none.
    std::string take_errors();

private:
    std::string name_;
    decltype(EngineHost::log) log_;
    std::mutex mutex_;
    std::string errors_;
};

// A runtime of the library. Engines must not outlive it. Thread-safe.
class TrtLibrary {
public:
    // Throws Error(EP_ERROR_RUNTIME_MISSING): no such library, or one that this file's headers do not describe;
    // EP_ERROR_BACKEND: it makes no runtime.
    explicit TrtLibrary(const EngineHost& host);

    const std::string& name() const { return name_; }
    const std::string& version() const { return version_; }
    const std::string& path() const { return path_; }
    TrtLog& log() { return log_; }
    // "TensorRT-RTX 1.7.1.116: what: its errors". `file`: the engine.
    [[noreturn]] void fail(const std::string& file, const std::string& what);
    // Throws Error: EP_ERROR_IO; EP_ERROR_BACKEND with the library's own words.
    std::unique_ptr<nvinfer1::ICudaEngine> read_engine(const std::string& path);

private:
    void* open(const EngineHost& host);

    std::string name_, version_, path_;
    TrtLog log_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
};

}  // namespace edgeprune
