// What the files of the C interface share: handles, checks, and the one place where an exception becomes a status.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "api_structs.h"
#include "error.h"
#include "image_frame.h"
#include "session.h"

struct ep_model {
    std::shared_ptr<const edgeprune::Model> model;
};

struct ep_session {
    explicit ep_session(std::shared_ptr<const edgeprune::Model> model) : session(std::move(model)) {}
    edgeprune::Session session;
};

namespace edgeprune {

// Keeps the text for ep_last_error of this thread; returns the status.
ep_status failed(ep_status status, const char* text) noexcept;

// Runs `body`; no exception leaves it.
template <class Body>
ep_status guarded(Body body) noexcept {
    try {
        body();
        return EP_OK;
    } catch (const Error& error) {
        return failed(error.status(), error.what());
    } catch (const std::bad_alloc&) {
        return failed(EP_ERROR_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& error) {
        return failed(EP_ERROR_INTERNAL, error.what());
    } catch (...) {
        return failed(EP_ERROR_INTERNAL, "an exception of an unknown kind");
    }
}

template <class Pointer>
void require(Pointer* pointer, const char* name) {
    if (pointer == nullptr) throw Error(EP_ERROR_INVALID_ARGUMENT, std::string(name) + " must not be null");
}

inline std::string text_or_empty(const char* text) {
    return text == nullptr ? "" : text;
}

inline void check_non_negative(int64_t value, const char* name) {
    if (value < 0) {
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    std::string(name) + " is " + std::to_string(value) + ", but must be at least 0");
    }
}

// A required frame, in the caller's memory.
inline FrameView checked_frame(const ep_frame* frame) {
    require(frame, "frame");
    return FrameView(read_struct(frame, "ep_frame"));
}

}  // namespace edgeprune
