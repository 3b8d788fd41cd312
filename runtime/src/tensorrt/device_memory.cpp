#include "device_memory.h"

#include <algorithm>
#include <utility>

#include "../error.h"

namespace edgeprune {
namespace {

constexpr size_t kLeastBytes = 512;  // TensorRT wants an address of empty tensors too

// A multiple of an eighth of the power of two below it.
size_t rounded(size_t bytes) {
    size_t step = kLeastBytes;
    while (step * 16 <= bytes) step *= 2;
    return std::max((bytes + step - 1) / step * step, kLeastBytes);
}

}  // namespace

Block::Block(std::shared_ptr<Device> device, cuda::Address address, size_t bytes)
    : device_(std::move(device)), address_(address), bytes_(bytes) {}

Block::~Block() {
    if (device_) device_->give_back(address_, bytes_);
}

Block::Block(Block&& other) noexcept
    : device_(std::move(other.device_)),
      address_(std::exchange(other.address_, 0)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Block& Block::operator=(Block&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

std::shared_ptr<Device> Device::open() {
    return std::shared_ptr<Device>(new Device());
}

Device::Device() {
    const cuda::PrimaryContext::Use use(context_);
    const cuda::Driver& driver = cuda::Driver::get();
    driver.check(driver.stream_create(&stream_, cuda::kNonBlocking), "cuStreamCreate");
}

Device::~Device() {
    try {
        const cuda::PrimaryContext::Use use(context_);
        const cuda::Driver& driver = cuda::Driver::get();
        static_cast<void>(driver.synchronise(stream_));
        free_idle(UINT64_MAX);
        if (scratch_ != 0) static_cast<void>(driver.release(scratch_));
        static_cast<void>(driver.stream_destroy(stream_));
    } catch (const Error&) {
        // The driver is failing; what it held goes with the process.
    }
}

Block Device::allocate(size_t bytes) {
    bytes = rounded(bytes);
    const std::lock_guard<std::mutex> lock(pool_);
    const auto same = [bytes](const Idle& idle) { return idle.bytes == bytes; };
    const auto found = std::find_if(idle_.rbegin(), idle_.rend(), same);
    if (found != idle_.rend()) {
        const Idle idle = *found;
        idle_.erase(std::next(found).base());
        return {shared_from_this(), idle.address, idle.bytes};
    }
    const cuda::PrimaryContext::Use use(context_);
    const cuda::Driver& driver = cuda::Driver::get();
    free_idle(run_ - 1);
    idle_.reserve(blocks_ + 1);  // so that giving back never has to allocate
    cuda::Address address = 0;
    cuda::Result result = driver.allocate(&address, bytes);
    if (result == cuda::kOutOfMemory) {
        free_idle(UINT64_MAX);
        result = driver.allocate(&address, bytes);
    }
    driver.check(result, "cuMemAlloc");
    ++blocks_;
    return {shared_from_this(), address, bytes};
}

void Device::give_back(cuda::Address address, size_t bytes) noexcept {
    const std::lock_guard<std::mutex> lock(pool_);
    idle_.push_back({address, bytes, run_});
}

// cuMemFree waits for the work that is queued, so nothing still uses what it frees.
void Device::free_idle(uint64_t before) noexcept {
    const auto old = std::partition(idle_.begin(), idle_.end(), [before](const Idle& i) { return i.since >= before; });
    for (auto idle = old; idle != idle_.end(); ++idle) static_cast<void>(cuda::Driver::get().release(idle->address));
    blocks_ -= static_cast<size_t>(idle_.end() - old);
    idle_.erase(old, idle_.end());
}

// No Block: a device that held one of itself would never go.
cuda::Address Device::scratch(size_t bytes) {
    if (bytes > scratch_bytes_) {
        const cuda::Driver& driver = cuda::Driver::get();
        if (scratch_ != 0) driver.check(driver.release(std::exchange(scratch_, 0)), "cuMemFree");
        scratch_bytes_ = 0;
        driver.check(driver.allocate(&scratch_, bytes), "cuMemAlloc");
        scratch_bytes_ = bytes;
    }
    return scratch_;
}

void Device::upload(cuda::Address to, const void* from, size_t bytes) {
    const cuda::PrimaryContext::Use use(context_);
    const cuda::Driver& driver = cuda::Driver::get();
    if (bytes > 0) driver.check(driver.upload(to, from, bytes, stream_), "cuMemcpyHtoDAsync");
}

void Device::download(void* to, cuda::Address from, size_t bytes) {
    const cuda::PrimaryContext::Use use(context_);
    const cuda::Driver& driver = cuda::Driver::get();
    if (bytes > 0) driver.check(driver.download(to, from, bytes, stream_), "cuMemcpyDtoHAsync");
    wait();
}

void Device::copy(cuda::Address to, cuda::Address from, size_t bytes) {
    const cuda::PrimaryContext::Use use(context_);
    const cuda::Driver& driver = cuda::Driver::get();
    driver.check(driver.copy(to, from, bytes, stream_), "cuMemcpyDtoDAsync");
}

void Device::wait() {
    const cuda::PrimaryContext::Use use(context_);
    const cuda::Driver& driver = cuda::Driver::get();
    driver.check(driver.synchronise(stream_), "cuStreamSynchronize");
}

void Device::next_run() {
    const std::lock_guard<std::mutex> lock(pool_);
    ++run_;
}

DeviceTensor::DeviceTensor(std::shared_ptr<Device> device, DType dtype, Shape shape)
    : device_(std::move(device)), dtype_(dtype), shape_(std::move(shape)) {}

void* DeviceTensor::host() const {
    if (!host_) host_.reset(new uint8_t[std::max<size_t>(bytes(), 1)]);
    return host_.get();
}

const void* DeviceTensor::data() const {
    void* memory = host();
    if (newest_ == Newest::device) {
        device_->download(memory, block_.address(), bytes());
        newest_ = Newest::both;
    }
    return memory;
}

void* DeviceTensor::mutable_data() {
    static_cast<void>(data());
    newest_ = Newest::host;
    return host_.get();
}

cuda::Address DeviceTensor::place() {
    if (block_.address() == 0) block_ = device_->allocate(bytes());
    return block_.address();
}

cuda::Address DeviceTensor::to_read() {
    const cuda::Address address = place();
    if (newest_ == Newest::host) {
        device_->upload(address, host_.get(), bytes());
        newest_ = Newest::both;
    }
    return address;
}

cuda::Address DeviceTensor::to_write() {
    const cuda::Address address = place();
    newest_ = Newest::device;
    return address;
}

}  // namespace edgeprune
