// The C interface of the library and the model: arguments checked, exceptions turned into statuses, nothing else.
#include <algorithm>

#include "api_internal.h"
#include "cores.h"
#include "keep_count.h"
#include "log.h"
#include "stages.h"

namespace edgeprune {
namespace {

thread_local std::string last_error;
thread_local bool last_error_lost = false;  // there was no memory for the text

}  // namespace

ep_status failed(ep_status status, const char* text) noexcept {
    try {
        last_error = text;
        last_error_lost = false;
    } catch (...) {
        last_error_lost = true;
    }
    return status;
}

namespace {

// Copies `count` elements out, or tells how many there are when `out` is null.
template <class Element>
void copy_out(const Element* data, size_t count, Element* out, size_t* capacity) {
    const size_t room = *capacity;
    *capacity = count;
    if (out == nullptr) return;
    if (room < count) {
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    "there is room for " + std::to_string(room) + ", but " + std::to_string(count) + " are needed");
    }
    std::copy_n(data, count, out);
}

Threading threading_of(const ep_model_options& options) {
    check_non_negative(options.threads, "threads");
    Threading threading;
    threading.threads = options.threads;
    threading.spin = options.no_spinning == 0;
    threading.cores = parse_cores(text_or_empty(options.cores));
    const auto count = static_cast<int32_t>(threading.cores.size());
    if (count == 0) return threading;
    if (threading.threads != 0 && threading.threads != count) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "threads is " + std::to_string(threading.threads) +
                                                   ", but cores names " + std::to_string(count) +
                                                   ": leave threads at 0 or name one core for each");
    }
    threading.threads = count;
    return threading;
}

ModelSettings model_settings(const ep_model_options* given) {
    const ep_model_options options = read_struct(given, "ep_model_options");
    check_non_negative(options.memory_limit_bytes, "memory_limit_bytes");
    check_non_negative(options.context_tokens, "context_tokens");
    if (options.verify != EP_VERIFY_HASHES && options.verify != EP_VERIFY_SIZES) {
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    "verify is " + std::to_string(options.verify) + ", which is no ep_verify value");
    }
    ModelSettings settings;
    settings.onnxruntime_library = text_or_empty(options.onnxruntime_library);
    settings.variant = text_or_empty(options.variant);
    settings.provider = text_or_empty(options.provider);
    settings.provider_choice.device_id = options.device_id;
    settings.provider_choice.engine_cache_dir = text_or_empty(options.engine_cache_dir);
    settings.provider_choice.engine_fp16 = options.engine_fp16 != 0;
    settings.threading = threading_of(options);
    settings.map_weights = options.map_weights != 0;
    settings.profile_prefix = text_or_empty(options.profile_prefix);
    settings.hashes = options.verify == EP_VERIFY_HASHES;
    settings.memory_limit_bytes = options.memory_limit_bytes;
    settings.context_tokens = options.context_tokens;
    return settings;
}

}  // namespace
}  // namespace edgeprune

using namespace edgeprune;

const char* ep_version(void) {
    return EDGEPRUNE_VERSION;
}
int32_t ep_abi_version(void) {
    return EP_ABI_VERSION;
}
const char* ep_last_error(void) {
    return last_error_lost ? "out of memory while the error text was written" : last_error.c_str();
}
void ep_set_log(ep_log_fn fn, ep_log_level least, void* user_data) {
    edgeprune::set_log(fn, least, user_data);
}
int64_t ep_keep_count(int64_t visual_tokens, double ratio) {
    return keep_count(visual_tokens, ratio);
}

const char* ep_status_name(ep_status status) {
    static const char* const names[] = {"EP_OK",
                                        "EP_ERROR_INVALID_ARGUMENT",
                                        "EP_ERROR_IO",
                                        "EP_ERROR_BUNDLE",
                                        "EP_ERROR_UNSUPPORTED",
                                        "EP_ERROR_RUNTIME_MISSING",
                                        "EP_ERROR_BACKEND",
                                        "EP_ERROR_IMAGE",
                                        "EP_ERROR_CONTEXT_FULL",
                                        "EP_ERROR_ABORTED",
                                        "EP_ERROR_DEADLINE",
                                        "EP_ERROR_OUT_OF_MEMORY",
                                        "EP_ERROR_BUSY",
                                        "EP_ERROR_INTERNAL",
                                        "EP_ERROR_PROVIDER"};
    const auto index = static_cast<size_t>(status);
    return index < sizeof names / sizeof names[0] ? names[index] : "unknown status";
}

ep_status ep_model_open(const char* bundle_dir, const ep_model_options* options, ep_model** out) {
    return guarded([&] {
        require(out, "out");
        *out = nullptr;
        require(bundle_dir, "bundle_dir");
        auto model = std::make_shared<const Model>(bundle_dir, model_settings(options));
        *out = std::make_unique<ep_model>(ep_model{std::move(model)}).release();
    });
}

ep_status ep_bundle_describe(const char* bundle_dir, const ep_model_options* options, char* json, size_t* size) {
    return guarded([&] {
        require(bundle_dir, "bundle_dir");
        require(size, "size");
        const std::string found = describe_bundle(bundle_dir, model_settings(options));
        copy_out(found.data(), found.size(), json, size);
    });
}

void ep_model_free(ep_model* model) {
    const std::unique_ptr<ep_model> owner(model);
}

const char* ep_model_describe(const ep_model* model) {
    return model == nullptr ? "" : model->model->description().c_str();
}

ep_status ep_model_warmup(ep_model* model) {
    return guarded([&] {
        require(model, "model");
        warm_up(*model->model);
    });
}

ep_status ep_tokenize(const ep_model* model, const char* text, int32_t allow_special, int32_t* ids, size_t* count) {
    return guarded([&] {
        require(model, "model");
        require(text, "text");
        require(count, "count");
        const std::string copy = text;
        std::vector<TextSpan> plain;
        if (allow_special == 0) plain.push_back({0, copy.size()});
        const std::vector<int32_t> found = model->model->tokenizer().encode(copy, plain);
        copy_out(found.data(), found.size(), ids, count);
    });
}

ep_status ep_detokenize(const ep_model* model, const int32_t* ids, size_t count, int32_t skip_special, char* text,
                        size_t* size) {
    return guarded([&] {
        require(model, "model");
        if (count > 0) require(ids, "ids");
        require(size, "size");
        const std::vector<int32_t> copy(ids, ids + count);
        const std::string found = model->model->tokenizer().decode(copy, skip_special != 0);
        copy_out(found.data(), found.size(), text, size);
    });
}

ep_status ep_preprocess(const ep_model* model, const ep_frame* frame, uint8_t* rgb, size_t* size) {
    return guarded([&] {
        require(model, "model");
        require(size, "size");
        const Rgb pixels = preprocess_bytes(checked_frame(frame), model->model->preprocess());
        copy_out(pixels.data.data(), pixels.data.size(), rgb, size);
    });
}
