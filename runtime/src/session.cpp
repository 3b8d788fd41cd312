#include "session.h"

#include "error.h"
#include "image_frame.h"
#include "stages.h"

namespace edgeprune {
namespace {

// Why nothing was pruned; empty when K < N.
std::string unpruned_reason(const Manifest& manifest, const MethodSpec& method, const KeepChoice& choice) {
    if (choice.count < manifest.visual_tokens) return "";
    if (method.where == "nowhere") return "method " + method.name + " keeps every token";
    return "keep " + ratio_text(choice.keep) + " keeps every token";
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

int32_t Session::add_image(const FrameView& picture, const KeepRequest& keep, const std::string& method_name) {
    const Manifest& manifest = model_->manifest();
    const MethodSpec& method = model_->method(method_name.empty() ? manifest.default_method : method_name);
    KeepChoice choice = choose_keep(manifest, method, keep);
    const bool two_graphs = model_->vision(method.name).select != nullptr;  // loading is no part of vision_ms

    Clock::time_point start = Clock::now();
    const Rgb pixels = preprocess_bytes(picture, model_->preprocess());
    const double resize_ms = elapsed_ms(start);
    const TensorPtr tensor = pixel_tensor(*model_, method.name, pixels);
    const double preprocess_ms = elapsed_ms(start);
    abort_.check();
    start = Clock::now();
    RunContext runs{abort_};
    SessionImage image;
    if (two_graphs) {
        image.encoded = encode_tokens(*model_, method.name, tensor, runs);
    } else {
        image.seen = encode_image(*model_, method.name, choice.count, tensor, runs);
    }
    const double vision_ms = elapsed_ms(start);
    start = Clock::now();
    if (image.encoded && !method.text) {
        if (choice.automatic) choice = choose_by_scores(manifest, method, *choice.automatic, image.encoded->scores);
        image.seen = select_tokens(*model_, method.name, choice.count, *image.encoded, {}, runs);
        image.encoded.reset();
        image_timings_.select_ms += elapsed_ms(start);
    }

    image.method = method.name;
    image.keep = choice.keep;
    image.automatic = choice.automatic;
    image.width_px = picture.width;
    image.height_px = picture.height;
    image.count = choice.count;
    image.reason = unpruned_reason(manifest, method, choice);
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
    VisionResult seen = select_tokens(*model_, known.method, known.count, *known.encoded, question, runs);
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
