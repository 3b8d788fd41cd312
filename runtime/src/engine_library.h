// The TensorRT back end lies in a shared object of its own, which is opened when a variant of engines is opened to be
// run: it is compiled against headers that most machines do not have (docs/adr/0014).
#pragma once

#include <memory>
#include <string>

#include "backend.h"
#include "edgeprune.h"

namespace edgeprune {

// What the shared object gets. It is of the same build as this library: C++ objects and exceptions cross.
struct EngineHost {
    const char* module;   // "tensorrt" or "tensorrt_rtx"
    const char* library;  // path of TensorRT's library; "": the loader's
    void (*log)(ep_log_level, const std::string&) noexcept;
};

// What the shared object has to export, and the text that both have to agree in.
constexpr const char* kEngineBuildSymbol = "edgeprune_engine_build";
constexpr const char* kEngineOpenSymbol = "edgeprune_engine_open";
constexpr const char* kEngineBuild = "edgeprune " EDGEPRUNE_VERSION ", engine interface 1";
using EngineBuild = const char* (*)();
using EngineOpen = Backend* (*)(const EngineHost&);

// Which libraries an engine needs, for people: "TensorRT" or "TensorRT-RTX".
inline std::string engine_name(const std::string& module) {
    return module == "tensorrt_rtx" ? "TensorRT-RTX" : "TensorRT";
}
// Of EDGEPRUNE_TENSORRT_LIB where it is set and names a library of the module; else "".
std::string named_tensorrt_library(const std::string& module);

// Opens the shared object that EDGEPRUNE_TENSORRT_BACKEND names, else the one beside this library, else the loader's.
// variant: for the sentence. Throws Error: EP_ERROR_RUNTIME_MISSING that names every place tried and says what to
// build; whatever the back end throws.
std::unique_ptr<Backend> open_engine_backend(const std::string& module, const std::string& variant);

}  // namespace edgeprune
