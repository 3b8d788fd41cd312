#include "session.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "error.h"
#include "image_frame.h"
#include "image_placement.h"
#include "keep_count.h"
#include "stages.h"

namespace edgeprune {
namespace {

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

struct Choice {
    double keep;    // the ratio that was asked for
    int64_t count;  // K
};

Choice fixed_choice(const Manifest& manifest, const MethodSpec& method, double keep) {
    const int64_t count = *method.static_keep;
    if (keep == 0) return {static_cast<double>(count) / static_cast<double>(manifest.visual_tokens), count};
    if (keep_count(manifest.visual_tokens, keep) == count) return {keep, count};
    throw Error(EP_ERROR_INVALID_ARGUMENT, "method \"" + method.name + "\" of this bundle keeps exactly " +
                                               std::to_string(count) + " of " + std::to_string(manifest.visual_tokens) +
                                               " tokens; keep " + number(keep) + " asks for " +
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

Choice served(const Manifest& manifest, const MethodSpec& method, const Choice& choice) {
    const int64_t nearest = nearest_count(method, choice.count);
    if (nearest == choice.count) return choice;
    throw Error(EP_ERROR_INVALID_ARGUMENT,
                "method \"" + method.name + "\" cannot keep " + std::to_string(choice.count) + " of " +
                    std::to_string(manifest.visual_tokens) + " tokens; the nearest count it can is " +
                    std::to_string(nearest) + " (keep " +
                    number(static_cast<double>(nearest) / static_cast<double>(manifest.visual_tokens)) + ")");
}

Choice choose_count(const Manifest& manifest, const MethodSpec& method, double keep) {
    if (!(keep >= 0 && keep <= 1)) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "keep is " + number(keep) + ", but must be above 0 and at most 1");
    }
    if (method.static_keep) return fixed_choice(manifest, method, keep);
    if (keep == 0) keep = manifest.keep_default;
    if (keep < manifest.keep_min || keep > manifest.keep_max) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "keep is " + number(keep) + ", but this bundle serves " +
                                                   number(manifest.keep_min) + " to " + number(manifest.keep_max));
    }
    return served(manifest, method, {keep, keep_count(manifest.visual_tokens, keep)});
}

// Why nothing was pruned; empty when K < N.
std::string unpruned_reason(const Manifest& manifest, const MethodSpec& method, const Choice& choice) {
    if (choice.count < manifest.visual_tokens) return "";
    if (method.where == "nowhere") return "method " + method.name + " keeps every token";
    return "keep " + number(choice.keep) + " keeps every token";
}

// The largest count up to `most` that the method serves; 0: none.
int64_t largest_count(const MethodSpec& method, int64_t most) {
    if (method.keep_counts.empty()) return most;
    int64_t best = 0;
    for (const CountRun& run : method.keep_counts) {
        if (run.first <= most) {
            best = std::max(best, run.first + (std::min(run.last, most) - run.first) / run.step * run.step);
        }
    }
    return best;
}

// K falls to the number of patches that are not padding. A method of fixed K keeps every token, padding too.
std::string cap_at_picture(const MethodSpec& method, const SessionImage& image, Choice& choice) {
    if (image.padding.empty() || method.static_keep) return "";
    const int64_t patches = std::count(image.padding.begin(), image.padding.end(), 0.0f);
    const std::string state = std::to_string(image.padding.size() - static_cast<size_t>(patches)) + " of " +
                              std::to_string(image.padding.size()) + " patches are padding";
    if (choice.count <= patches) return "";
    const int64_t asked = std::exchange(choice.count, largest_count(method, patches));
    if (choice.count > 0)
        return state + ", so " + std::to_string(choice.count) + " are kept, not " + std::to_string(asked);
    throw Error(EP_ERROR_IMAGE, "the picture is " + std::to_string(image.width_px) + " x " +
                                    std::to_string(image.height_px) + " px: " + state + ", so method \"" + method.name +
                                    "\" has nothing to keep");
}

}  // namespace

Session::Session(std::shared_ptr<const Model> model)
    : model_(std::move(model)), cache_(model_->backend(), *model_->manifest().decoder.kv) {}

Session::Use::Use(const Session& session) : session_(session) {
    if (session_.busy_.exchange(true)) {
        throw Error(EP_ERROR_BUSY, "the session is in use: give every thread a session of its own");
    }
    session_.abort_.begin();
}

Session::Use::~Use() {
    session_.abort_.end();
    session_.busy_.store(false);
}

void Session::reset() {
    images_.clear();
    next_image_ = 0;
    cache_.truncate(0);
    image_timings_ = timings_ = {};
    answer_ = {};
    scores_ = {};
    logits_.clear();
    prefill_logits_.clear();
}

void Session::truncate(int64_t kv_tokens) {
    if (kv_tokens < 0 || kv_tokens > cache_.length()) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "cannot keep " + std::to_string(kv_tokens) +
                                                   " tokens: the KV cache has " + std::to_string(cache_.length()));
    }
    cache_.truncate(kv_tokens);
}

int32_t Session::add_image(const FrameView& picture, double keep, const std::string& method_name) {
    const Manifest& manifest = model_->manifest();
    const MethodSpec& method = model_->method(method_name.empty() ? manifest.default_method : method_name);
    Choice choice = choose_count(manifest, method, keep);
    model_->vision(method.name);  // loading is no part of vision_ms

    SessionImage image;
    image.width_px = picture.width;
    image.height_px = picture.height;

    Clock::time_point start = Clock::now();
    const Rgb pixels = preprocess_bytes(picture, model_->preprocess());
    const double resize_ms = elapsed_ms(start);
    image.padding =
        padding_mask(picture.width, picture.height, model_->preprocess(), manifest.grid_rows, manifest.grid_cols);
    const std::string capped = cap_at_picture(method, image, choice);
    const TensorPtr tensor = pixel_tensor(*model_, method.name, pixels);
    const double preprocess_ms = elapsed_ms(start);
    abort_.check();
    start = Clock::now();
    RunContext runs{abort_};
    VisionResult result = encode_image(*model_, method.name, choice.count, tensor, image.padding, runs);
    const double vision_ms = elapsed_ms(start);

    image.method = method.name;
    image.keep = choice.keep;
    image.embeds = std::move(result.embeds);
    image.kept = result.kept;
    image.width = result.width;
    image.keep_idx = std::move(result.keep_idx);
    image.scores = std::move(result.scores);
    image.reason = capped.empty() ? unpruned_reason(manifest, method, choice) : capped;
    images_.emplace(next_image_, std::move(image));
    image_timings_.vision_ms += vision_ms;
    image_timings_.preprocess_ms += preprocess_ms;
    image_timings_.resize_ms += resize_ms;
    image_timings_.graph_ms += runs.graph_ms;
    return next_image_++;
}

int32_t Session::add_image_file(const std::string& path, double keep, const std::string& method) {
    const Clock::time_point start = Clock::now();
    const Rgb picture = decode_image_file(path);
    const double decode_ms = elapsed_ms(start);
    const int32_t id = add_image(picture, keep, method);
    image_timings_.decode_image_ms += decode_ms;
    return id;
}

const SessionImage& Session::image(int32_t image) const {
    const auto found = images_.find(image);
    if (found != images_.end()) return found->second;
    throw Error(EP_ERROR_INVALID_ARGUMENT, "the session has no image " + std::to_string(image));
}

void Session::remove_image(int32_t image) {
    this->image(image);
    cache_.forget_image(image);
    images_.erase(image);
}

void Session::set_embeds(int32_t image, const float* data, int64_t kept, int64_t width) {
    const SessionImage& known = this->image(image);
    if (kept != known.kept || width != known.width) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "image " + std::to_string(image) + " has embeddings of shape " +
                                                   shape_text({known.kept, known.width}) + ", not " +
                                                   shape_text({kept, width}));
    }
    cache_.forget_image(image);
    images_.at(image).embeds.assign(data, data + kept * width);
}

std::vector<ImageSlots> Session::image_slots(const PromptRequest& request) const {
    std::vector<ImageSlots> slots;
    if (request.images) {
        for (const int32_t id : *request.images) slots.push_back({id, image(id).kept});
    } else {
        for (const auto& [id, image] : images_) slots.push_back({id, image.kept});
    }
    return slots;
}

}  // namespace edgeprune
