// TensorRT and TensorRT-RTX as a backend: the entry of libedgeprune_tensorrt.so. It was never run on a GPU; what it was
// tried with is in docs/adr/0014.
#include "engine_library.h"
#include "error.h"
#include "tensorrt/trt_graph.h"

namespace edgeprune {
namespace {

class TrtBackend final : public Backend {
public:
    explicit TrtBackend(const EngineHost& host) : library_(std::make_shared<TrtLibrary>(host)) {}

    std::string provider() const override { return library_->name(); }
    std::string version() const override { return library_->version(); }
    std::string library() const override { return library_->path(); }

    // The engine is read before the GPU is asked for: where there is none, TensorRT's own words say why.
    std::unique_ptr<Graph> open_graph(const std::string& path, const GraphOptions& options) const override {
        if (!options.profile_prefix.empty()) {
            throw Error(EP_ERROR_UNSUPPORTED,
                        "profile_prefix asks for onnxruntime's traces, which engines do not have");
        }
        auto engine = library_->read_engine(path);
        return std::make_unique<TrtGraph>(library_, device(), std::move(engine), path.substr(path.rfind('/') + 1));
    }

    TensorPtr new_tensor(DType dtype, const Shape& shape) const override {
        return std::make_shared<DeviceTensor>(device(), dtype, shape);
    }

    // Of its own: copies on the GPU must not overlap.
    TensorPtr room_within(const TensorPtr& whole, const Shape& shape) const override {
        return new_tensor(whole->dtype(), shape);
    }

    void copy_blocks(Tensor& from, Tensor& to, int64_t blocks) const override {
        const size_t source_block = from.bytes() / static_cast<size_t>(blocks);
        const size_t target_block = to.bytes() / static_cast<size_t>(blocks);
        if (target_block == 0) return;
        const cuda::Address source = static_cast<DeviceTensor&>(from).to_read();
        const cuda::Address target = static_cast<DeviceTensor&>(to).to_write();
        for (size_t block = 0; block < static_cast<size_t>(blocks); ++block) {
            device()->copy(target + block * target_block, source + block * source_block, target_block);
        }
    }

private:
    const std::shared_ptr<Device>& device() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!device_) device_ = Device::open();
        return device_;
    }

    std::shared_ptr<TrtLibrary> library_;
    mutable std::mutex mutex_;
    mutable std::shared_ptr<Device> device_;
};

}  // namespace
}  // namespace edgeprune

extern "C" {

__attribute__((visibility("default"))) const char* edgeprune_engine_build() {
    return edgeprune::kEngineBuild;
}

// Throws edgeprune::Error. The caller owns what it returns.
__attribute__((visibility("default"))) edgeprune::Backend* edgeprune_engine_open(const edgeprune::EngineHost& host) {
    return std::make_unique<edgeprune::TrtBackend>(host).release();
}
}
