// The part of the CUDA driver's interface that the TensorRT back end calls. Nothing is linked and no header of CUDA is
// read: libcuda.so.1 comes with every driver, keeps its functions' names and signatures, and is opened at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

struct CUstream_st;  // CUDA's own names: TensorRT's headers speak of the same types
struct CUctx_st;

namespace edgeprune::cuda {

using Stream = CUstream_st*;
using Context = CUctx_st*;
using Address = unsigned long long;  // in the GPU's memory
using Result = int;                  // 0: done

constexpr Result kOutOfMemory = 2;
constexpr unsigned kNonBlocking = 1;  // a stream that does not wait for the default one
class Driver {
public:
    // The process's driver, opened and initialised on the first call.
    // Throws Error(EP_ERROR_RUNTIME_MISSING): no driver, or one that is too old; EP_ERROR_BACKEND: it refuses to start.
    static const Driver& get();
    // Why get() would fail for want of a driver; empty where there is one.
    static std::string missing();

    // Throws Error with the driver's own words: EP_ERROR_OUT_OF_MEMORY or EP_ERROR_BACKEND.
    void check(Result result, const char* what) const;

    Result (*init)(unsigned flags);
    Result (*device_get)(int* device, int index);
    Result (*primary_retain)(Context*, int device);
    Result (*primary_release)(int device);
    Result (*push)(Context);
    Result (*pop)(Context*);
    Result (*allocate)(Address*, size_t bytes);
    Result (*release)(Address);
    Result (*stream_create)(Stream*, unsigned flags);
    Result (*stream_destroy)(Stream);
    Result (*synchronise)(Stream);
    Result (*upload)(Address, const void*, size_t bytes, Stream);
    Result (*download)(void*, Address, size_t bytes, Stream);
    Result (*copy)(Address to, Address from, size_t bytes, Stream);
    Result (*error_text)(Result, const char**);

private:
    Driver();
};

// The context that TensorRT uses too, held for the life of the object.
class PrimaryContext {
public:
    PrimaryContext();
    ~PrimaryContext();
    PrimaryContext(const PrimaryContext&) = delete;
    PrimaryContext& operator=(const PrimaryContext&) = delete;

    // Makes it the calling thread's, for the life of the object; the thread gets its own back.
    class Use {
    public:
        explicit Use(const PrimaryContext& context);
        ~Use();
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;
    };

private:
    int device_ = 0;
    Context context_ = nullptr;
};

}  // namespace edgeprune::cuda
