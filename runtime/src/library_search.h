// Finding and opening libonnxruntime at run time.
#pragma once

#include <optional>
#include <string>

#include "ort_api.h"

namespace edgeprune {

struct Version {
    int major = 0, minor = 0;
};

// "1.31.1" -> {1, 31}; nothing when the text does not begin with two numbers.
std::optional<Version> read_version(const std::string& text);
bool operator<(const Version& a, const Version& b);

// A loaded libonnxruntime; it stays loaded until the process ends.
struct OrtLibrary {
    std::string path;     // of the file that the loader mapped
    std::string version;  // as the library states it
    ort::Api api;
    const ort::Slot* table = nullptr;            // what `api` reads
    const ort::Slot* placement_table = nullptr;  // the same of its version 24; null: the library is older
    ort::Env* env = nullptr;                     // the process's only one for this library
    ort::CustomOpDomain* operators = nullptr;    // ours, for every session
};

// Opens `option` when it is not empty, else EDGEPRUNE_ORT_LIB when it is set, else the loader's libonnxruntime.so.1 and
// libonnxruntime.so. A place that was named is the only one tried: another one would be a silent fallback.
// Throws Error(EP_ERROR_RUNTIME_MISSING) that names every place tried.
const OrtLibrary& open_onnxruntime(const std::string& option, Version least);

}  // namespace edgeprune
