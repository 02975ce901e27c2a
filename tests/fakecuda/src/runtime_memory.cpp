// Memory: that of a device is memory of the host, of which only pages that are written take space.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "runtime.h"

namespace fakecuda {
namespace {

constexpr size_t kPage = 4096;

// Copies between buffers on a device, and fills, are left out beyond this size: their values would mean nothing anyway.
constexpr size_t kLargestDeviceCopy = 65536;

struct Allocation {
  size_t bytes;
  int device;
};

std::map<char*, Allocation> device_memory;
std::map<char*, Allocation> pinned_memory;
std::map<int, size_t> bytes_in_use;

size_t round_up(size_t bytes) { return bytes ? (bytes + kPage - 1) / kPage * kPage : kPage; }

// FAKECUDA_MEMORY: bytes of each device, to run out of memory at.
size_t memory_of_device() {
  const char* bytes = getenv("FAKECUDA_MEMORY");
  return bytes ? strtoull(bytes, nullptr, 10) : kAllMemory;
}

const std::pair<char* const, Allocation>* find(const std::map<char*, Allocation>& memory, const void* pointer) {
  char* address = static_cast<char*>(const_cast<void*>(pointer));
  auto next = memory.upper_bound(address);
  if (next == memory.begin()) return nullptr;
  auto entry = std::prev(next);
  return address < entry->first + entry->second.bytes ? &*entry : nullptr;
}

bool is_on_device(const void* pointer) { return find(device_memory, pointer); }

bool is_pinned(const void* pointer) { return find(pinned_memory, pointer); }

std::string direction(const void* target, const void* source) {
  bool to_device = is_on_device(target);
  bool from_device = is_on_device(source);
  if (to_device && from_device) return "device to device";
  if (to_device) return is_pinned(source) ? "pinned to device" : "pageable to device";
  if (from_device) return is_pinned(target) ? "device to pinned" : "device to pageable";
  return "host to host";
}

cudaError_t copy(void* target, const void* source, size_t bytes, cudaStream_t stream) {
  std::string path = direction(target, source);
  cudaError_t error = enqueue(stream, "copy", path, std::to_string(bytes));
  if (error) return error;
  if (capture_of(stream_of(stream))) return cudaSuccess;
  // CUDA returns from a copy to pageable memory only once it is complete.
  if (path == "device to pageable") write_wait(stream_of(stream), "copy to pageable memory");
  if (path != "device to device" || bytes <= kLargestDeviceCopy) memcpy(target, source, bytes);
  return cudaSuccess;
}

}  // namespace
}  // namespace fakecuda

using namespace fakecuda;

EXPORT int fakecuda_find_allocation(const void* pointer, void** start, size_t* bytes, int* device) {
  Lock lock;
  auto* entry = find(device_memory, pointer);
  if (!entry) return 0;
  *start = entry->first;
  *bytes = entry->second.bytes;
  *device = entry->second.device;
  return 1;
}

// --- Memory of a device ---------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  Lock lock;
  if (is_refused_during_capture("cudaMalloc")) return fail(cudaErrorStreamCaptureUnsupported);
  int device = fakecuda_device();
  size_t size = round_up(bytes);
  if (bytes_in_use[device] + size > memory_of_device()) return fail(cudaErrorMemoryAllocation);
  void* address =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return fail(cudaErrorMemoryAllocation);
  device_memory[static_cast<char*>(address)] = {size, device};
  bytes_in_use[device] += size;
  use_device(device);
  write("malloc", device, -1, 0, "cudaMalloc", std::to_string(bytes));
  *pointer = address;
  return cudaSuccess;
}

EXPORT cudaError_t cudaFree(void* pointer) {
  Lock lock;
  if (!pointer) return cudaSuccess;
  if (is_refused_during_capture("cudaFree")) return fail(cudaErrorStreamCaptureUnsupported);
  auto entry = device_memory.find(static_cast<char*>(pointer));
  if (entry == device_memory.end()) return fail(cudaErrorInvalidValue);
  Allocation allocation = entry->second;
  device_memory.erase(entry);
  munmap(pointer, allocation.bytes);
  bytes_in_use[allocation.device] -= allocation.bytes;
  write("free", allocation.device, -1, 0, "cudaFree", std::to_string(allocation.bytes));
  return cudaSuccess;
}

EXPORT cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) { return cudaMalloc(pointer, bytes); }

EXPORT cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }

EXPORT cudaError_t cudaMallocManaged(void** pointer, size_t bytes, unsigned) { return cudaMalloc(pointer, bytes); }

EXPORT cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock;
  *total = memory_of_device();
  *free = *total - bytes_in_use[fakecuda_device()];
  return cudaSuccess;
}

EXPORT cudaError_t cudaGetSymbolAddress(void** pointer, const void*) {
  static char variables[1 << 20];
  *pointer = variables;
  return cudaSuccess;
}

// --- Pinned memory --------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  Lock lock;
  if (is_refused_during_capture("cudaHostAlloc")) return fail(cudaErrorStreamCaptureUnsupported);
  *pointer = aligned_alloc(kPage, round_up(bytes));
  pinned_memory[static_cast<char*>(*pointer)] = {bytes, fakecuda_device()};
  write("malloc", fakecuda_device(), -1, 0, "cudaHostAlloc", std::to_string(bytes));
  return cudaSuccess;
}

EXPORT cudaError_t cudaMallocHost(void** pointer, size_t bytes) { return cudaHostAlloc(pointer, bytes, 0); }

EXPORT cudaError_t cudaFreeHost(void* pointer) {
  Lock lock;
  pinned_memory.erase(static_cast<char*>(pointer));
  free(pointer);
  return cudaSuccess;
}

EXPORT cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned) {
  Lock lock;
  pinned_memory[static_cast<char*>(pointer)] = {bytes, fakecuda_device()};
  return cudaSuccess;
}

EXPORT cudaError_t cudaHostUnregister(void* pointer) {
  Lock lock;
  pinned_memory.erase(static_cast<char*>(pointer));
  return cudaSuccess;
}

EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  Lock lock;
  memset(attributes, 0, sizeof(*attributes));
  void* address = const_cast<void*>(pointer);
  attributes->type = cudaMemoryTypeUnregistered;
  if (auto* entry = find(device_memory, pointer)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->device = entry->second.device;
    attributes->devicePointer = address;
  } else if (auto* entry = find(pinned_memory, pointer)) {
    attributes->type = cudaMemoryTypeHost;
    attributes->device = entry->second.device;
    attributes->hostPointer = address;
    attributes->devicePointer = address;
  }
  return cudaSuccess;
}

// --- Copies and fills -----------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  Lock lock;
  return copy(target, source, bytes, stream);
}

EXPORT cudaError_t cudaMemcpyPeerAsync(void* target, int, const void* source, int, size_t bytes, cudaStream_t stream) {
  Lock lock;
  return copy(target, source, bytes, stream);
}

EXPORT cudaError_t cudaMemcpy(void* target, const void* source, size_t bytes, cudaMemcpyKind) {
  Lock lock;
  if (is_refused_during_capture("cudaMemcpy")) return fail(cudaErrorStreamCaptureUnsupported);
  write_wait(stream_of(nullptr), "cudaMemcpy " + direction(target, source));
  memcpy(target, source, bytes);
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemcpy2DAsync(void* target, size_t, const void* source, size_t, size_t width, size_t height,
                                     cudaMemcpyKind, cudaStream_t stream) {
  Lock lock;
  return enqueue(stream, "copy", direction(target, source), std::to_string(width * height));
}

EXPORT cudaError_t cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, cudaMemcpyKind) { return cudaSuccess; }

EXPORT cudaError_t cudaMemset(void* target, int value, size_t bytes) {
  Lock lock;
  if (is_refused_during_capture("cudaMemset")) return fail(cudaErrorStreamCaptureUnsupported);
  if (bytes <= kLargestDeviceCopy) memset(target, value, bytes);
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
  Lock lock;
  cudaError_t error = enqueue(stream, "memset", "memset", std::to_string(bytes));
  if (error) return error;
  bool is_captured = capture_of(stream_of(stream));
  if (!is_captured && bytes <= kLargestDeviceCopy) memset(target, value, bytes);
  return cudaSuccess;
}

// --- Memory pools of CUDA, which PyTorch asks about but does not use ------------------------------------------------------

EXPORT cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = reinterpret_cast<cudaMemPool_t>(static_cast<intptr_t>(0x10 + device));
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  *static_cast<unsigned long long*>(value) = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

EXPORT cudaError_t cudaMemPoolSetAccess(cudaMemPool_t, const cudaMemAccessDesc*, size_t) { return cudaSuccess; }

EXPORT cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

EXPORT cudaError_t cudaDeviceGetGraphMemAttribute(int, cudaGraphMemAttributeType, void* value) {
  *static_cast<unsigned long long*>(value) = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceSetGraphMemAttribute(int, cudaGraphMemAttributeType, void*) { return cudaSuccess; }

// --- Memory of other processes: not supported -----------------------------------------------------------------------------

EXPORT cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t*, void*) { return fail(cudaErrorNotSupported); }

EXPORT cudaError_t cudaIpcOpenMemHandle(void**, cudaIpcMemHandle_t, unsigned) { return fail(cudaErrorNotSupported); }

EXPORT cudaError_t cudaIpcCloseMemHandle(void*) { return fail(cudaErrorNotSupported); }

EXPORT cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t*, cudaEvent_t) { return fail(cudaErrorNotSupported); }

EXPORT cudaError_t cudaIpcOpenEventHandle(cudaEvent_t*, cudaIpcEventHandle_t) { return fail(cudaErrorNotSupported); }
