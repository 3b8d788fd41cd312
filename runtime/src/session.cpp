#include "session.h"

#include <algorithm>
#include <utility>

#include "error.h"
#include "image_frame.h"
#include "image_placement.h"
#include "stages.h"

namespace edgeprune {
namespace {

// Why nothing was pruned; empty when K < N.
std::string unpruned_reason(const Manifest& manifest, const MethodSpec& method, const KeepChoice& choice) {
    if (choice.count < manifest.visual_tokens) return "";
    if (method.where == "nowhere") return "method " + method.name + " keeps every token";
    return "keep " + ratio_text(choice.keep) + " keeps every token";
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
std::string cap_at_picture(const MethodSpec& method, const SessionImage& image, KeepChoice& choice) {
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

// Scores whose mass counts: padding has none.
std::vector<float> picture_scores(const Encoded& encoded, const std::vector<float>& padding) {
    std::vector<float> scores = encoded.scores;
    for (size_t i = 0; i < padding.size(); ++i) {
        if (padding[i] != 0.0f) scores[i] = 0.0f;
    }
    return scores;
}

}  // namespace

Session::Session(std::shared_ptr<const Model> model)
    : model_(std::move(model)), cache_(model_->decoder().backend(), *model_->manifest().decoder.kv) {}

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

int32_t Session::add_image(const FrameView& picture, const KeepRequest& keep, const std::string& method_name) {
    const Manifest& manifest = model_->manifest();
    const MethodSpec& method = model_->method(method_name.empty() ? manifest.default_method : method_name);
    KeepChoice choice = choose_keep(manifest, method, keep);
    const bool two_graphs = model_->vision(method.name).select != nullptr;  // loading is no part of vision_ms

    SessionImage image;
    image.width_px = picture.width;
    image.height_px = picture.height;

    Clock::time_point start = Clock::now();
    const Rgb pixels = preprocess_bytes(picture, model_->preprocess());
    const double resize_ms = elapsed_ms(start);
    image.padding =
        padding_mask(picture.width, picture.height, model_->preprocess(), manifest.grid_rows, manifest.grid_cols);
    std::string capped = cap_at_picture(method, image, choice);
    const TensorPtr tensor = pixel_tensor(*model_, method.name, pixels);
    const double preprocess_ms = elapsed_ms(start);
    abort_.check();
    start = Clock::now();
    RunContext runs{abort_};
    if (two_graphs) {
        image.encoded = encode_tokens(*model_, method.name, tensor, runs);
    } else {
        image.seen = encode_image(*model_, method.name, choice.count, tensor, image.padding, runs);
    }
    const double vision_ms = elapsed_ms(start);
    start = Clock::now();
    if (image.encoded && !method.text) {
        if (choice.automatic) {
            const std::vector<float> scores = picture_scores(*image.encoded, image.padding);
            choice = choose_by_scores(manifest, method, *choice.automatic, scores);
            capped = cap_at_picture(method, image, choice);
        }
        image.seen = select_tokens(*model_, method.name, choice.count, *image.encoded, image.padding, {}, runs);
        image.encoded.reset();
        image_timings_.select_ms += elapsed_ms(start);
    }

    image.method = method.name;
    image.keep = choice.keep;
    image.automatic = choice.automatic;
    image.count = choice.count;
    image.reason = capped.empty() ? unpruned_reason(manifest, method, choice) : capped;
    images_.emplace(next_image_, std::move(image));
    image_timings_.vision_ms += vision_ms;
    image_timings_.preprocess_ms += preprocess_ms;
    image_timings_.resize_ms += resize_ms;
    image_timings_.graph_ms += runs.graph_ms;
    return next_image_++;
}

int32_t Session::add_image_file(const std::string& path, const KeepRequest& keep, const std::string& method) {
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

const SessionImage& Session::seen_image(int32_t image) const {
    const SessionImage& known = this->image(image);
    if (known.seen.kept > 0) return known;
    throw Error(EP_ERROR_INVALID_ARGUMENT, "image " + std::to_string(image) + " has no kept tokens yet: method \"" +
                                               known.method + "\" reads the question, so ask one first");
}

void Session::select(int32_t image, const std::vector<int32_t>& ids, const QuestionText& question, RunContext& runs) {
    SessionImage& known = images_.at(image);
    std::vector<int32_t> asked = ids;
    VisionResult seen =
        select_tokens(*model_, known.method, known.count, *known.encoded, known.padding, question, runs);
    // Equal tokens have equal keys and values, so a question that keeps the same ones may go on from them.
    if (seen.embeds != known.seen.embeds) cache_.forget_image(image);
    known.seen = std::move(seen);
    known.question.swap(asked);
}

void Session::remove_image(int32_t image) {
    this->image(image);
    cache_.forget_image(image);
    images_.erase(image);
}

void Session::set_embeds(int32_t image, const float* data, int64_t kept, int64_t width) {
    const VisionResult& known = seen_image(image).seen;
    if (kept != known.kept || width != known.width) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "image " + std::to_string(image) + " has embeddings of shape " +
                                                   shape_text({known.kept, known.width}) + ", not " +
                                                   shape_text({kept, width}));
    }
    cache_.forget_image(image);
    images_.at(image).seen.embeds.assign(data, data + kept * width);
}

std::vector<ImageSlots> Session::image_slots(const PromptRequest& request) const {
    std::vector<ImageSlots> slots;
    if (request.images) {
        for (const int32_t id : *request.images) slots.push_back({id, image(id).count});
    } else {
        for (const auto& [id, image] : images_) slots.push_back({id, image.count});
    }
    return slots;
}

}  // namespace edgeprune
