// How many tokens of an image are kept: a request and a manifest become K.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "manifest.h"

namespace edgeprune {

// What a caller asks for; all 0: the bundle's default.
struct KeepRequest {
    double ratio = 0;    // K / N
    AutoKeep automatic;  // mass above 0: K from the scores; its min and max 0: the bundle's bounds
};

struct KeepChoice {
    double keep = 0;    // the ratio that was asked for, or K / N where K comes from the scores
    int64_t count = 0;  // K; 0 as long as the scores are not known
    std::optional<AutoKeep> automatic;
};

// Throws Error(EP_ERROR_INVALID_ARGUMENT) for what the bundle or the method does not serve.
KeepChoice choose_keep(const Manifest& manifest, const MethodSpec& method, const KeepRequest& request);

// The count that the method serves nearest to mass_count between keep_count(N, min) and keep_count(N, max), the smaller
// of two. Throws Error(EP_ERROR_BACKEND) for scores that have no mass, and when no count between the two is served.
KeepChoice choose_by_scores(const Manifest& manifest, const MethodSpec& method, const AutoKeep& automatic,
                            const std::vector<float>& scores);

// "0.25"
std::string ratio_text(double value);

}  // namespace edgeprune
