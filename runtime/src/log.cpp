#include "log.h"

#include <mutex>

namespace edgeprune {
namespace {

struct Hook {
    ep_log_fn function = nullptr;
    ep_log_level least = EP_LOG_WARNING;
    void* user_data = nullptr;
};

std::mutex hook_mutex;
Hook hook;

Hook current() {
    const std::lock_guard<std::mutex> lock(hook_mutex);
    return hook;
}

}  // namespace

void set_log(ep_log_fn function, ep_log_level least, void* user_data) {
    const std::lock_guard<std::mutex> lock(hook_mutex);
    hook = {function, least, user_data};
}

void log(ep_log_level level, const std::string& message) noexcept {
    // Called outside the lock: a hook may itself set another hook.
    const Hook now = current();
    if (now.function != nullptr && level >= now.least) now.function(level, message.c_str(), now.user_data);
}

ep_log_level log_level() noexcept {
    const Hook now = current();
    return now.function == nullptr ? EP_LOG_ERROR : now.least;
}

}  // namespace edgeprune
