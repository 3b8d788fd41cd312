// The process-wide log hook behind ep_set_log.
#pragma once

#include <string>

#include "edgeprune.h"

namespace edgeprune {

void set_log(ep_log_fn function, ep_log_level least, void* user_data);
void log(ep_log_level level, const std::string& message) noexcept;
// The least level that anyone listens to; EP_LOG_ERROR when logging is off.
ep_log_level log_level() noexcept;

}  // namespace edgeprune
