/*
 * edgeprune.hpp - libedgeprune from C++17: the functions of edgeprune.h with ownership, and nothing else.
 *
 *     #include <edgeprune.hpp>
 *     #include <iostream>
 *
 *     int main() {
 *         const edgeprune::Model model = edgeprune::Model::open("demo-keep0.1.bundle").value();
 *         edgeprune::Session session = model.new_session().value();
 *         session.add_image_file("scene.png").value();
 *         edgeprune::GenerateOptions options;
 *         options.deadline_ms = 500;
 *         std::cout << session.generate("What is in the image?", options).value().text << '\n';
 *     }
 *
 *  - Every call that can fail returns a Result: true when it holds a value; otherwise status() and message() say why.
 *    value() of a failed Result throws edgeprune::Exception; compiled with -fno-exceptions it prints the message to
 *    stderr and aborts, so look at the Result first.
 *  - The option structs are those of edgeprune.h, initialised; its comments explain their fields.
 *  - Results are copies and own what they hold, except where a comment says borrowed.
 *  - Model is shared: copies name the same model. Session keeps its model alive and moves, but does not copy.
 *  - Threads: as in edgeprune.h. Session::abort may be called from any thread while the session lives.
 */
#ifndef EDGEPRUNE_HPP
#define EDGEPRUNE_HPP

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "edgeprune.h"

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define EDGEPRUNE_EXCEPTIONS 1
#include <exception>
#include <stdexcept>
#else
#define EDGEPRUNE_EXCEPTIONS 0
#endif

namespace edgeprune {

#if EDGEPRUNE_EXCEPTIONS
// What value() of a failed Result throws; what() is the sentence of ep_last_error.
class Exception : public std::runtime_error {
public:
    Exception(ep_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
    ep_status status() const noexcept { return status_; }

private:
    ep_status status_;
};
#endif

namespace detail {

[[noreturn]] inline void fail(ep_status status, const std::string& message) {
#if EDGEPRUNE_EXCEPTIONS
    throw Exception(status, message);
#else
    std::fprintf(stderr, "edgeprune: value() of a failed Result: %s: %s\n", ep_status_name(status), message.c_str());
    std::abort();
#endif
}

}  // namespace detail

// A failure: turns into a Result of any kind.
struct Failure {
    ep_status status = EP_ERROR_INTERNAL;
    std::string message;
    // Of the call that has just failed on this thread.
    static Failure last(ep_status status) { return {status, ep_last_error()}; }
};

// A value, or the status and the sentence that say why there is none.
template <class Value>
class [[nodiscard]] Result {
public:
    Result(Value value) : value_(std::move(value)) {}
    Result(Failure failure) : failure_(std::move(failure)) {}

    bool ok() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return ok(); }
    ep_status status() const noexcept { return ok() ? EP_OK : failure_.status; }
    const std::string& message() const noexcept { return failure_.message; }  // "" when ok

    Value& value() & {
        require();
        return *value_;
    }
    const Value& value() const& {
        require();
        return *value_;
    }
    Value&& value() && {
        require();
        return *std::move(value_);
    }

private:
    void require() const {
        if (!ok()) detail::fail(failure_.status, failure_.message);
    }
    std::optional<Value> value_;
    Failure failure_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Failure failure) : failure_(std::move(failure)) {}

    bool ok() const noexcept { return !failure_.has_value(); }
    explicit operator bool() const noexcept { return ok(); }
    ep_status status() const noexcept { return ok() ? EP_OK : failure_->status; }
    std::string message() const { return ok() ? std::string() : failure_->message; }
    void value() const {
        if (!ok()) detail::fail(failure_->status, failure_->message);
    }

private:
    std::optional<Failure> failure_;
};

/* ---- options and results ----------------------------------------------------------------------------------- */

struct ModelOptions : ep_model_options {
    ModelOptions() { ep_model_options_init(this); }
};

struct ImageOptions : ep_image_options {
    ImageOptions() { ep_image_options_init(this); }
    explicit ImageOptions(double keep_ratio) : ImageOptions() { keep = keep_ratio; }
};

// Pixels of the caller; nothing is copied when it is made.
struct Frame : ep_frame {
    Frame() { ep_frame_init(this); }
    Frame(const std::uint8_t* first_row, std::int32_t width, std::int32_t height, ep_pixel_format pixel_format)
        : Frame() {
        data = first_row;
        width_px = width;
        height_px = height;
        format = pixel_format;
    }
};

// `prompt`, `images`, `stop`, `on_text` and `user_data` of the C struct are set by Session::generate from its argument
// and from the fields below; the others are the caller's.
struct GenerateOptions : ep_generate_options {
    GenerateOptions() { ep_generate_options_init(this); }

    std::optional<std::vector<std::int32_t>> image_ids;  // nullopt: all images of the session
    std::vector<std::string> stop_strings;
    // Every piece of text as it becomes final, on the calling thread; return false to stop. May throw: the generation
    // then stops and the exception leaves Session::generate.
    std::function<bool(std::string_view piece, std::int32_t token_id)> on_piece;
};

struct Answer {
    std::string text;
    std::vector<std::int32_t> token_ids;
    ep_finish_reason finish_reason = EP_FINISH_EOS;  // EP_FINISH_ABORTED, EP_FINISH_DEADLINE: the text is unfinished
    std::int64_t prompt_tokens = 0;
    std::int64_t visual_tokens_kept = 0;
    std::int64_t reused_tokens = 0;
    std::int64_t kv_tokens = 0;
};

struct KeptTokens {
    std::vector<std::int64_t> keep_idx;  // K
    std::vector<float> scores;           // N, or none when the method has no scores
    std::int64_t visual_tokens = 0;      // N
    std::int32_t grid_rows = 0, grid_cols = 0;
    bool applied = false;
    std::string reason;
    std::string method;
    double keep = 0;
    std::vector<float> pad_mask;  // N, 1 for letter-box padding; none when the bundle does not letter-box
    double auto_mass = 0, auto_min = 0, auto_max = 0;  // as in ep_kept_tokens
};

struct Stats : ep_stats {
    Stats() { ep_stats_init(this); }
};

/* ---- session ----------------------------------------------------------------------------------------------- */

class Session {
public:
    Result<void> reset() { return check(ep_session_reset(handle())); }
    Result<void> truncate(std::int64_t kv_tokens) { return check(ep_session_truncate(handle(), kv_tokens)); }
    Result<void> remove_image(std::int32_t image) { return check(ep_session_image_remove(handle(), image)); }
    // Stops a running generate or add_image from another thread; without one it does nothing.
    void abort() const noexcept { ep_session_abort(handle()); }

    // Preprocesses, encodes and prunes one image now; gives its id.
    Result<std::int32_t> add_image(const ep_frame& frame, const ep_image_options& options = ImageOptions()) {
        std::int32_t image = -1;
        const ep_status status = ep_session_add_image(handle(), &frame, &options, &image);
        if (status != EP_OK) return Failure::last(status);
        return image;
    }

    Result<std::int32_t> add_image_file(const std::string& path, const ep_image_options& options = ImageOptions()) {
        std::int32_t image = -1;
        const ep_status status = ep_session_add_image_file(handle(), path.c_str(), &options, &image);
        if (status != EP_OK) return Failure::last(status);
        return image;
    }

    // An answer cut short by abort or deadline_ms is a value; its finish_reason tells.
    Result<Answer> generate(const std::string& prompt, const GenerateOptions& options = GenerateOptions());
    Result<KeptTokens> kept_tokens(std::int32_t image) const;

    Result<Stats> stats() const {
        Stats stats;
        const ep_status status = ep_session_stats(handle(), &stats);
        if (status != EP_OK) return Failure::last(status);
        return stats;
    }

    // V logits of the last executed position.
    Result<std::vector<float>> logits() const {
        const float* values = nullptr;
        std::int64_t count = 0;
        const ep_status status = ep_session_logits(handle(), &values, &count);
        if (status != EP_OK) return Failure::last(status);
        return std::vector<float>(values, values + count);
    }

    // For functions of edgeprune.h that have no method here. Borrowed.
    ep_session* handle() const noexcept { return handle_.get(); }

private:
    friend class Model;
    struct Free {
        void operator()(ep_session* session) const noexcept { ep_session_free(session); }
    };
    Session(std::shared_ptr<ep_model> model, ep_session* session) : model_(std::move(model)), handle_(session) {}
    static Result<void> check(ep_status status) {
        if (status != EP_OK) return Failure::last(status);
        return {};
    }

    std::shared_ptr<ep_model> model_;  // outlives the handle below
    std::unique_ptr<ep_session, Free> handle_;
};

namespace detail {

// Carries the pieces of one generation to on_piece, and what it throws back.
struct Pieces {
    const GenerateOptions& options;
#if EDGEPRUNE_EXCEPTIONS
    std::exception_ptr thrown;
#endif

    static std::int32_t take(const char* text, std::size_t size, std::int32_t token_id, void* user_data) {
        auto* const self = static_cast<Pieces*>(user_data);
#if EDGEPRUNE_EXCEPTIONS
        try {
            return self->options.on_piece({text, size}, token_id) ? 0 : 1;
        } catch (...) {
            self->thrown = std::current_exception();
            return 1;
        }
#else
        return self->options.on_piece({text, size}, token_id) ? 0 : 1;
#endif
    }
};

inline Answer owned(const ep_answer& raw) {
    Answer answer;
    if (raw.text != nullptr) answer.text.assign(raw.text, raw.text_size);
    answer.token_ids.assign(raw.token_ids, raw.token_ids + raw.token_count);
    answer.finish_reason = static_cast<ep_finish_reason>(raw.finish_reason);
    answer.prompt_tokens = raw.prompt_tokens;
    answer.visual_tokens_kept = raw.visual_tokens_kept;
    answer.reused_tokens = raw.reused_tokens;
    answer.kv_tokens = raw.kv_tokens;
    return answer;
}

}  // namespace detail

inline Result<Answer> Session::generate(const std::string& prompt, const GenerateOptions& options) {
    ep_generate_options raw = options;
    static const std::int32_t none = 0;  // an address for "no images", which is not "all images"
    std::vector<const char*> stops;
    for (const std::string& stop : options.stop_strings) stops.push_back(stop.c_str());
    raw.prompt = prompt.c_str();
    raw.images = !options.image_ids ? nullptr : options.image_ids->empty() ? &none : options.image_ids->data();
    raw.image_count = options.image_ids ? options.image_ids->size() : 0;
    raw.stop = stops.data();
    raw.stop_count = stops.size();
#if EDGEPRUNE_EXCEPTIONS
    detail::Pieces pieces{options, nullptr};
#else
    detail::Pieces pieces{options};
#endif
    raw.on_text = options.on_piece ? &detail::Pieces::take : nullptr;
    raw.user_data = &pieces;

    ep_answer answer;
    ep_answer_init(&answer);
    const ep_status status = ep_session_generate(handle(), &raw, &answer);
#if EDGEPRUNE_EXCEPTIONS
    if (pieces.thrown) std::rethrow_exception(pieces.thrown);
#endif
    const bool cut_short = status == EP_ERROR_ABORTED || status == EP_ERROR_DEADLINE;
    if (status != EP_OK && !cut_short) return Failure::last(status);
    return detail::owned(answer);
}

inline Result<KeptTokens> Session::kept_tokens(std::int32_t image) const {
    ep_kept_tokens raw;
    ep_kept_tokens_init(&raw);
    const ep_status status = ep_session_kept_tokens(handle(), image, &raw);
    if (status != EP_OK) return Failure::last(status);
    KeptTokens kept;
    kept.keep_idx.assign(raw.keep_idx, raw.keep_idx + raw.kept);
    if (raw.scores != nullptr) kept.scores.assign(raw.scores, raw.scores + raw.visual_tokens);
    kept.visual_tokens = raw.visual_tokens;
    kept.grid_rows = raw.grid_rows;
    kept.grid_cols = raw.grid_cols;
    kept.applied = raw.applied != 0;
    kept.reason = raw.reason;
    kept.method = raw.method;
    kept.keep = raw.keep;
    if (raw.pad_mask != nullptr) kept.pad_mask.assign(raw.pad_mask, raw.pad_mask + raw.visual_tokens);
    kept.auto_mass = raw.auto_mass;
    kept.auto_min = raw.auto_min;
    kept.auto_max = raw.auto_max;
    return kept;
}

/* ---- model ------------------------------------------------------------------------------------------------- */

class Model {
public:
    static Result<Model> open(const std::string& bundle_dir, const ep_model_options& options = ModelOptions()) {
        ep_model* model = nullptr;
        const ep_status status = ep_model_open(bundle_dir.c_str(), &options, &model);
        if (status != EP_OK) return Failure::last(status);
        return Model(model);
    }

    Result<Session> new_session() const {
        ep_session* session = nullptr;
        const ep_status status = ep_session_new(handle(), nullptr, &session);
        if (status != EP_OK) return Failure::last(status);
        return Session(handle_, session);
    }

    Result<void> warmup() const {
        const ep_status status = ep_model_warmup(handle());
        if (status != EP_OK) return Failure::last(status);
        return {};
    }

    // JSON.
    std::string describe() const { return ep_model_describe(handle()); }

    Result<std::vector<std::int32_t>> tokenize(const std::string& text, bool allow_special = false) const {
        std::size_t count = 0;
        ep_status status = ep_tokenize(handle(), text.c_str(), allow_special, nullptr, &count);
        std::vector<std::int32_t> ids(count);
        if (status == EP_OK && count > 0) {
            status = ep_tokenize(handle(), text.c_str(), allow_special, ids.data(), &count);
        }
        if (status != EP_OK) return Failure::last(status);
        return ids;
    }

    Result<std::string> detokenize(const std::vector<std::int32_t>& ids, bool skip_special = true) const {
        std::size_t size = 0;
        ep_status status = ep_detokenize(handle(), ids.data(), ids.size(), skip_special, nullptr, &size);
        std::string text(size, '\0');
        if (status == EP_OK && size > 0) {
            status = ep_detokenize(handle(), ids.data(), ids.size(), skip_special, text.data(), &size);
        }
        if (status != EP_OK) return Failure::last(status);
        return text;
    }

    // For functions of edgeprune.h that have no method here. Borrowed.
    ep_model* handle() const noexcept { return handle_.get(); }

private:
    explicit Model(ep_model* model) : handle_(model, ep_model_free) {}
    std::shared_ptr<ep_model> handle_;
};

}  // namespace edgeprune

#endif /* EDGEPRUNE_HPP */
