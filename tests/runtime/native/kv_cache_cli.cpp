// Driven by tests/runtime/test_kv_cache.py: the library of onnxruntime. Fills a cache with numbers that tell their
// place, shortens it, and expects the right numbers: in the same memory where the cache is alone, elsewhere where a
// copy shares it.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "backend_ort.h"
#include "kv_cache.h"
#include "library_search.h"

using namespace edgeprune;

namespace {

constexpr int64_t kLayers = 2, kHeads = 3, kWidth = 4;

void expect(bool held, const char* what) {
    if (held) return;
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

float number(bool value, int64_t layer, int64_t head, int64_t token, int64_t i) {
    return static_cast<float>((((value ? 1 : 0) * 10 + layer) * 10 + head) * 1000 + token * 10 + i);
}

void grow(const Backend& backend, KvCache& cache, int64_t added) {
    const int64_t length = cache.length() + added;
    RoleTensors outputs;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
        for (const bool value : {false, true}) {
            TensorPtr tensor = backend.new_tensor(DType::float32, {1, kHeads, length, kWidth});
            auto* at = static_cast<float*>(tensor->mutable_data());
            for (int64_t head = 0; head < kHeads; ++head) {
                for (int64_t token = 0; token < length; ++token) {
                    for (int64_t i = 0; i < kWidth; ++i) *at++ = number(value, layer, head, token, i);
                }
            }
            outputs[(value ? "present_value." : "present_key.") + std::to_string(layer)] = tensor;
        }
    }
    std::vector<Item> items(static_cast<size_t>(added));
    for (int64_t i = 0; i < added; ++i) items[static_cast<size_t>(i)].token = static_cast<int32_t>(i);
    cache.take(outputs, items);
}

// Where every tensor lies; their numbers are checked on the way.
std::vector<const void*> places(const KvCache& cache, int64_t length) {
    RoleTensors tensors;
    cache.bind(tensors);
    expect(cache.length() == length && cache.items().size() == static_cast<size_t>(length), "the length is another");
    std::vector<const void*> found;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
        for (const bool value : {false, true}) {
            const Tensor& tensor = *tensors.at((value ? "past_value." : "past_key.") + std::to_string(layer));
            expect(tensor.shape() == Shape{1, kHeads, length, kWidth}, "the shape is another");
            const auto* at = static_cast<const float*>(tensor.data());
            found.push_back(at);
            for (int64_t head = 0; head < kHeads; ++head) {
                for (int64_t token = 0; token < length; ++token) {
                    for (int64_t i = 0; i < kWidth; ++i) {
                        expect(*at++ == number(value, layer, head, token, i), "a number is another");
                    }
                }
            }
        }
    }
    return found;
}

float& at(const TensorPtr& tensor, int64_t head, int64_t token, int64_t i) {
    const int64_t capacity = tensor->shape()[2];
    return static_cast<float*>(tensor->mutable_data())[(head * capacity + token) * kWidth + i];
}

// As a run does it: writes behind the last token into the memory that the cache gives, and leaves the rest.
RoleTensors run_fixed(KvCache& cache, int64_t added, bool completed = true) {
    const int64_t begin = cache.length();
    const RoleTensors memory = cache.room_for(added);
    RoleTensors past;
    cache.bind(past);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
        for (const bool value : {false, true}) {
            const std::string name = (value ? "value." : "key.") + std::to_string(layer);
            const TensorPtr& tensor = memory.at("present_" + name);
            expect(tensor == past.at("past_" + name), "past and present are two buffers");
            expect(tensor->shape()[2] == KvCache::capacity_for(tensor->shape()[2]), "the capacity is another");
            for (int64_t head = 0; head < kHeads; ++head) {
                for (int64_t token = 0; token < tensor->shape()[2]; ++token) {
                    for (int64_t i = 0; i < kWidth; ++i) {
                        const float wanted = token < begin ? number(value, layer, head, token, i) : 0.0f;
                        expect(at(tensor, head, token, i) == wanted, "a token is lost, or what was forgotten is left");
                        const bool written = token >= begin && token < begin + added;
                        if (written) at(tensor, head, token, i) = number(value, layer, head, token, i);
                    }
                }
            }
        }
    }
    if (completed) cache.take(memory, std::vector<Item>(static_cast<size_t>(added)));
    return memory;
}

void check_fixed(const Backend& backend) {
    KvCache cache(backend, KvSpec{"fixed", kLayers, kHeads, kWidth, DType::float32});
    const RoleTensors first = run_fixed(cache, 60);
    expect(run_fixed(cache, 4) == first, "the cache moved although there was room");
    const RoleTensors second = run_fixed(cache, 1);
    expect(second != first && cache.length() == 65, "the cache did not grow");
    expect(cache.bytes() == 2 * kLayers * kHeads * kWidth * 128 * 4, "the cache has another size");
    run_fixed(cache, 5, false);  // aborted: what it wrote is cleared before the next run
    cache.truncate(30);
    expect(run_fixed(cache, 3) == second && cache.length() == 33, "forgetting tokens moved the cache");
    {
        KvCache copy = cache;
        expect(run_fixed(copy, 2) == second, "a copy that only adds needs memory of its own");
        KvCache other = cache;
        run_fixed(other, 200);
        KvCache shorter = cache;
        shorter.truncate(10);
        run_fixed(shorter, 20);
    }
    expect(run_fixed(cache, 2) == second && cache.length() == 35, "a copy left something behind");
    cache.truncate(0);
    expect(cache.bytes() == 0 && cache.length() == 0, "an empty cache keeps memory");
    run_fixed(cache, 7);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    const auto backend = open_ort_backend(argv[1], *read_version("1.17"));
    KvCache cache(*backend, KvSpec{"growing", kLayers, kHeads, kWidth, DType::float32});
    grow(*backend, cache, 40);
    const auto first = places(cache, 40);
    for (const int64_t length : {40, 39, 17, 16, 5}) {
        cache.truncate(length);
        expect(places(cache, length) == first, "shortening moved a tensor");
    }
    {
        KvCache copy = cache;
        copy.truncate(2);
        expect(places(cache, 5) == first, "shortening a copy moved the original");
        for (const void* place : places(copy, 2)) expect(place != first[0], "a copy was shortened in place");
        cache.truncate(4);
        places(cache, 4);
    }
    grow(*backend, cache, 30);
    const auto second = places(cache, 34);
    cache.truncate(33);
    expect(places(cache, 33) == second, "shortening after a run moved a tensor");
    cache.truncate(0);
    places(cache, 0);
    check_fixed(*backend);
    std::puts("held");
}
