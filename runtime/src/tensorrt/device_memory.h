// The GPU's memory: blocks that go back to a pool instead of being freed, and tensors that are fetched only when
// someone reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "../backend.h"
#include "cuda_api.h"

namespace edgeprune {

class Device;

// A piece of the GPU's memory; the device gets it back when the object goes.
class Block {
public:
    Block() = default;
    Block(std::shared_ptr<Device> device, cuda::Address address, size_t bytes);
    ~Block();
    Block(Block&& other) noexcept;
    Block& operator=(Block&& other) noexcept;

    cuda::Address address() const { return address_; }
    size_t bytes() const { return bytes_; }

private:
    std::shared_ptr<Device> device_;
    cuda::Address address_ = 0;
    size_t bytes_ = 0;
};

// The first GPU with one stream, on which everything of a model is queued: what is queued later finds the work of what
// came before done, so a block may be reused as soon as nobody holds it. Thread-safe.
class Device : public std::enable_shared_from_this<Device> {
public:
    // Throws Error: no driver, no GPU.
    static std::shared_ptr<Device> open();
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    const cuda::PrimaryContext& context() const { return context_; }
    cuda::Stream stream() const { return stream_; }
    // Held during a run: the contexts of an engine serve one thread at a time, and runs share the scratch memory.
    std::mutex& running() { return running_; }

    // At least so many bytes, rounded up to an eighth of the next power of two: the cache of the next token mostly fits
    // into what the cache before the last one has left. Throws Error(EP_ERROR_OUT_OF_MEMORY).
    Block allocate(size_t bytes);
    // Memory for the inner results of one run, shared by all engines: a run that needs more replaces it. The caller
    // holds running() and a PrimaryContext::Use.
    cuda::Address scratch(size_t bytes);
    void upload(cuda::Address to, const void* from, size_t bytes);
    // Returns when the bytes are there.
    void download(void* to, cuda::Address from, size_t bytes);
    void copy(cuda::Address to, cuda::Address from, size_t bytes);
    void wait();
    // Blocks that lay idle since the run before the last one may go when memory is wanted.
    void next_run();

private:
    friend class Block;
    struct Idle {
        cuda::Address address;
        size_t bytes;
        uint64_t since;  // the run in which it was given back
    };
    Device();
    void give_back(cuda::Address address, size_t bytes) noexcept;
    // Frees idle blocks that were given back before run `before`.
    void free_idle(uint64_t before) noexcept;

    cuda::PrimaryContext context_;
    cuda::Stream stream_ = nullptr;
    std::mutex running_, pool_;
    std::vector<Idle> idle_;
    size_t blocks_ = 0;  // in use or idle
    uint64_t run_ = 2;
    cuda::Address scratch_ = 0;
    size_t scratch_bytes_ = 0;
};

// Where the numbers of a tensor are newest decides which way they are copied when the other side wants them.
class DeviceTensor final : public Tensor {
public:
    DeviceTensor(std::shared_ptr<Device> device, DType dtype, Shape shape);

    DType dtype() const override { return dtype_; }
    const Shape& shape() const override { return shape_; }
    const void* data() const override;
    void* mutable_data() override;
    // For a run or copy that reads the tensor.
    cuda::Address to_read();
    // For a run or copy that writes the whole tensor.
    cuda::Address to_write();

private:
    enum class Newest { nowhere, host, device, both };

    cuda::Address place();
    void* host() const;

    std::shared_ptr<Device> device_;
    DType dtype_;
    Shape shape_;
    Block block_;
    mutable std::unique_ptr<uint8_t[]> host_;
    mutable Newest newest_ = Newest::nowhere;
};

}  // namespace edgeprune
