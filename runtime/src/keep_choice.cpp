#include "keep_choice.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "error.h"
#include "keep_count.h"

namespace edgeprune {
namespace {

[[noreturn]] void refuse(const std::string& text) {
    throw Error(EP_ERROR_INVALID_ARGUMENT, text);
}

double share(const Manifest& manifest, int64_t count) {
    return static_cast<double>(count) / static_cast<double>(manifest.visual_tokens);
}

KeepChoice fixed_choice(const Manifest& manifest, const MethodSpec& method, double keep) {
    const int64_t count = *method.static_keep;
    if (keep == 0) return {share(manifest, count), count, {}};
    if (keep_count(manifest.visual_tokens, keep) == count) return {keep, count, {}};
    refuse("method \"" + method.name + "\" of this bundle keeps exactly " + std::to_string(count) + " of " +
           std::to_string(manifest.visual_tokens) + " tokens; keep " + ratio_text(keep) + " asks for " +
           std::to_string(keep_count(manifest.visual_tokens, keep)));
}

// The count that the method serves nearest to the one asked for; the smaller of two.
int64_t nearest_count(const MethodSpec& method, int64_t count) {
    if (method.keep_counts.empty()) return count;
    int64_t best = method.keep_counts.front().first;
    for (const CountRun& run : method.keep_counts) {
        const int64_t inside = std::clamp(count, run.first, run.last);
        const int64_t below = run.first + (inside - run.first) / run.step * run.step;
        for (const int64_t candidate : {below, std::min(below + run.step, run.last)}) {
            if (std::llabs(candidate - count) < std::llabs(best - count)) best = candidate;
        }
    }
    return best;
}

KeepChoice served(const Manifest& manifest, const MethodSpec& method, const KeepChoice& choice) {
    const int64_t nearest = nearest_count(method, choice.count);
    if (nearest == choice.count) return choice;
    refuse("method \"" + method.name + "\" cannot keep " + std::to_string(choice.count) + " of " +
           std::to_string(manifest.visual_tokens) + " tokens; the nearest count it can is " + std::to_string(nearest) +
           " (keep " + ratio_text(share(manifest, nearest)) + ")");
}

bool within(const Manifest& manifest, double ratio) {
    return manifest.keep_min <= ratio && ratio <= manifest.keep_max;
}

std::string bounds(const Manifest& manifest) {
    return ratio_text(manifest.keep_min) + " to " + ratio_text(manifest.keep_max);
}

// The scores come out of the first of two graphs, before K is needed.
bool scores_come_first(const Manifest& manifest, const MethodSpec& method) {
    const std::vector<GraphSpec>& stages = manifest.vision.at(method.name);
    const std::vector<TensorSpec>& made = stages.front().outputs;
    return stages.size() == 2 && method.dynamic_keep &&
           std::any_of(made.begin(), made.end(), [](const TensorSpec& tensor) { return tensor.role == "scores"; });
}

KeepChoice automatic_choice(const Manifest& manifest, const MethodSpec& method, AutoKeep asked) {
    if (!(asked.mass > 0 && asked.mass <= 1)) {
        refuse("the mass of an automatic keep is " + ratio_text(asked.mass) + ", but must be above 0 and at most 1");
    }
    if (!scores_come_first(manifest, method)) {
        refuse("method \"" + method.name +
               "\" of this bundle cannot choose K from its scores; give a number, or export one that can with --keep "
               "auto:mass=...");
    }
    if (asked.min == 0) asked.min = manifest.keep_min;
    if (asked.max == 0) asked.max = manifest.keep_max;
    if (!within(manifest, asked.min) || !within(manifest, asked.max) || asked.min > asked.max) {
        refuse("an automatic keep from " + ratio_text(asked.min) + " to " + ratio_text(asked.max) +
               " is asked for, but this bundle serves " + bounds(manifest));
    }
    return {0, 0, asked};
}

}  // namespace

std::string ratio_text(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

KeepChoice choose_keep(const Manifest& manifest, const MethodSpec& method, const KeepRequest& request) {
    const AutoKeep& asked = request.automatic;
    double keep = request.ratio;
    if (asked.mass != 0 || asked.min != 0 || asked.max != 0) {
        if (keep != 0) refuse("keep is " + ratio_text(keep) + " and an automatic keep is asked for too; give one");
        return automatic_choice(manifest, method, asked);
    }
    if (!(keep >= 0 && keep <= 1)) refuse("keep is " + ratio_text(keep) + ", but must be above 0 and at most 1");
    if (method.static_keep) return fixed_choice(manifest, method, keep);
    if (keep == 0 && manifest.keep_auto) return automatic_choice(manifest, method, *manifest.keep_auto);
    if (keep == 0) keep = manifest.keep_default;
    if (!within(manifest, keep)) {
        refuse("keep is " + ratio_text(keep) + ", but this bundle serves " + bounds(manifest));
    }
    return served(manifest, method, {keep, keep_count(manifest.visual_tokens, keep), {}});
}

KeepChoice choose_by_scores(const Manifest& manifest, const MethodSpec& method, const AutoKeep& automatic,
                            const std::vector<float>& scores) {
    const int64_t wanted = mass_count(scores, automatic.mass);
    if (wanted < 0) {
        throw Error(EP_ERROR_BACKEND, "method \"" + method.name +
                                          "\" gave negative scores, so no count holds a share of them; give a number");
    }
    const int64_t least = keep_count(manifest.visual_tokens, automatic.min);
    const int64_t most = keep_count(manifest.visual_tokens, automatic.max);
    const int64_t inside = std::clamp(wanted, least, most);
    for (int64_t away = 0; away <= most - least; ++away) {
        for (const int64_t count : {inside - away, inside + away}) {
            if (count < least || count > most || nearest_count(method, count) != count) continue;
            return {share(manifest, count), count, automatic};
        }
    }
    throw Error(EP_ERROR_BACKEND, "method \"" + method.name + "\" serves no count from " + std::to_string(least) +
                                      " to " + std::to_string(most) + "; widen the bounds of the automatic keep");
}

}  // namespace edgeprune
