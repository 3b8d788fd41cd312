#include "cuda_api.h"

#include <dlfcn.h>

#include "../error.h"

namespace edgeprune::cuda {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";

// Never closed: the driver cannot be unloaded.
void* open_driver(std::string& why) {
    void* handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const char* text = dlerror();
        why = text == nullptr ? kLibrary : text;
    }
    return handle;
}

template <class Function>
void bind(void* handle, Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(handle, name));
    if (function != nullptr) return;
    throw Error(EP_ERROR_RUNTIME_MISSING,
                std::string(kLibrary) + " has no " + name + ": the NVIDIA driver is too old, install a newer one");
}

}  // namespace

std::string Driver::missing() {
    std::string why;
    return open_driver(why) == nullptr ? why : "";
}

// The names with a number are those that cuda.h gives the functions of 64-bit programs.
Driver::Driver() {
    std::string why;
    void* handle = open_driver(why);
    if (handle == nullptr) {
        throw Error(EP_ERROR_RUNTIME_MISSING, "engines run on an NVIDIA GPU, and its driver is not here: " + why);
    }
    bind(handle, init, "cuInit");
    bind(handle, device_get, "cuDeviceGet");
    bind(handle, primary_retain, "cuDevicePrimaryCtxRetain");
    bind(handle, primary_release, "cuDevicePrimaryCtxRelease_v2");
    bind(handle, push, "cuCtxPushCurrent_v2");
    bind(handle, pop, "cuCtxPopCurrent_v2");
    bind(handle, allocate, "cuMemAlloc_v2");
    bind(handle, release, "cuMemFree_v2");
    bind(handle, stream_create, "cuStreamCreate");
    bind(handle, stream_destroy, "cuStreamDestroy_v2");
    bind(handle, synchronise, "cuStreamSynchronize");
    bind(handle, upload, "cuMemcpyHtoDAsync_v2");
    bind(handle, download, "cuMemcpyDtoHAsync_v2");
    bind(handle, copy, "cuMemcpyDtoDAsync_v2");
    bind(handle, error_text, "cuGetErrorString");
    check(init(0), "cuInit");
}

const Driver& Driver::get() {
    static const Driver driver;
    return driver;
}

void Driver::check(Result result, const char* what) const {
    if (result == 0) return;
    const char* text = nullptr;
    if (error_text(result, &text) != 0 || text == nullptr) text = "unknown error";
    throw Error(result == kOutOfMemory ? EP_ERROR_OUT_OF_MEMORY : EP_ERROR_BACKEND,
                std::string("CUDA: ") + what + " failed with " + std::to_string(result) + ", " + text);
}

PrimaryContext::PrimaryContext() {
    const Driver& driver = Driver::get();
    driver.check(driver.device_get(&device_, 0), "cuDeviceGet");
    driver.check(driver.primary_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

PrimaryContext::~PrimaryContext() {
    static_cast<void>(Driver::get().primary_release(device_));
}

PrimaryContext::Use::Use(const PrimaryContext& context) {
    const Driver& driver = Driver::get();
    driver.check(driver.push(context.context_), "cuCtxPushCurrent");
}

PrimaryContext::Use::~Use() {
    Context ours = nullptr;
    static_cast<void>(Driver::get().pop(&ours));
}

}  // namespace edgeprune::cuda
