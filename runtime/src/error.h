// The one exception type of the library. api.cpp turns it into an ep_status and the text of ep_last_error().
#pragma once

#include <stdexcept>
#include <string>

#include "edgeprune.h"

namespace edgeprune {

class Error : public std::runtime_error {
public:
    Error(ep_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
    ep_status status() const { return status_; }

private:
    ep_status status_;
};

}  // namespace edgeprune
