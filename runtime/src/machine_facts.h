// What of a machine decides whether an engine runs on it, asked of the driver and the libraries themselves.
#pragma once

#include <optional>
#include <string>

namespace edgeprune {

// "8.7" of the first GPU by libcuda; nothing where there is no driver or no GPU.
std::optional<std::string> compute_capability();

// "10.3.0.26" of TensorRT ("tensorrt") or TensorRT-RTX ("tensorrt_rtx"), where the loader
// finds it or EDGEPRUNE_TENSORRT_LIB names it; a library that is
// found stays loaded until the process ends. Nothing for another name.
std::optional<std::string> tensorrt_version(const std::string& module);

// First line of JetPack's release file; nothing on other machines.
std::optional<std::string> jetpack();

}  // namespace edgeprune
