// Devices: one or more of the kind "H100 80GB", by FAKECUDA_DEVICES.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime.h"

namespace fakecuda {
namespace {

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

// Devices on which something was made. A program that uses one device must not touch the others.
std::set<int>& devices_in_use() {
  static std::set<int> devices;
  return devices;
}

}  // namespace

cudaError_t fail(cudaError_t error) {
  last_error = error;
  return error;
}

void use_device(int device) { devices_in_use().insert(device); }

}  // namespace fakecuda

using namespace fakecuda;

EXPORT int fakecuda_device() { return current_device; }

EXPORT int fakecuda_device_count() {
  const char* count = getenv("FAKECUDA_DEVICES");
  return count ? atoi(count) : 1;
}

EXPORT void fakecuda_set_device(int device) { current_device = device; }

EXPORT int fakecuda_is_device_in_use(int device) {
  Lock lock;
  return devices_in_use().count(device);
}

// --- The current device ---------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaGetDeviceCount(int* count) {
  *count = fakecuda_device_count();
  return cudaSuccess;
}

EXPORT cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

EXPORT cudaError_t cudaSetDevice(int device) {
  Lock lock;
  if (device < 0 || device >= fakecuda_device_count()) return fail(cudaErrorInvalidDevice);
  current_device = device;
  use_device(device);
  return cudaSuccess;
}

// --- Properties -----------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  memset(properties, 0, sizeof(*properties));
  strcpy(properties->name, "NVIDIA H100 80GB HBM3");
  memcpy(&properties->uuid, "fakefakefakefake", 16);
  reinterpret_cast<char*>(&properties->uuid)[15] = static_cast<char>('A' + device);
  properties->totalGlobalMem = kAllMemory;
  properties->major = 9;
  properties->minor = 0;
  properties->multiProcessorCount = 132;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsDim[0] = 1024;
  properties->maxThreadsDim[1] = 1024;
  properties->maxThreadsDim[2] = 64;
  properties->maxGridSize[0] = 2147483647;
  properties->maxGridSize[1] = 65535;
  properties->maxGridSize[2] = 65535;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->maxBlocksPerMultiProcessor = 32;
  properties->regsPerBlock = 65536;
  properties->regsPerMultiprocessor = 65536;
  properties->sharedMemPerBlock = 49152;
  properties->sharedMemPerBlockOptin = 232448;
  properties->sharedMemPerMultiprocessor = 233472;
  properties->totalConstMem = 65536;
  properties->l2CacheSize = 52428800;
  properties->memoryBusWidth = 5120;
  properties->textureAlignment = 512;
  properties->unifiedAddressing = 1;
  properties->canMapHostMemory = 1;
  properties->concurrentKernels = 1;
  properties->cooperativeLaunch = 1;
  properties->asyncEngineCount = 3;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  static const std::map<int, int> values = {
      {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrComputeCapabilityMinor, 0},
      {cudaDevAttrMultiProcessorCount, 132},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMaxThreadsPerBlock, 1024},
      {cudaDevAttrMaxBlockDimX, 1024},
      {cudaDevAttrMaxBlockDimY, 1024},
      {cudaDevAttrMaxBlockDimZ, 64},
      {cudaDevAttrMaxGridDimX, 2147483647},
      {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535},
      {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
      {cudaDevAttrMaxBlocksPerMultiprocessor, 32},
      {cudaDevAttrMaxRegistersPerBlock, 65536},
      {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
      {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 233472},
      {cudaDevAttrReservedSharedMemoryPerBlock, 1024},
      {cudaDevAttrL2CacheSize, 52428800},
      {cudaDevAttrClockRate, 1980000},
      {cudaDevAttrMemoryClockRate, 2619000},
      {cudaDevAttrGlobalMemoryBusWidth, 5120},
      {cudaDevAttrTextureAlignment, 512},
      {cudaDevAttrUnifiedAddressing, 1},
      {cudaDevAttrConcurrentKernels, 1},
      {cudaDevAttrCooperativeLaunch, 1},
      {cudaDevAttrMemoryPoolsSupported, 1},
      {cudaDevAttrCanUseHostPointerForRegisteredMem, 1},
  };
  auto entry = values.find(attribute);
  *value = entry == values.end() ? 0 : entry->second;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  snprintf(text, length, "0000:00:%02x.0", device + 1);
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceCanAccessPeer(int* value, int, int) {
  *value = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }

// --- Versions and the driver ----------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

EXPORT cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                                    cudaDriverEntryPointQueryResult* result) {
  static void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  *function = nullptr;
  if (driver) {
    *function = dlsym(driver, (std::string(symbol) + "_v2").c_str());
    if (!*function) *function = dlsym(driver, symbol);
  }
  if (result) *result = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

EXPORT cudaError_t cudaProfilerStart() { return cudaSuccess; }

EXPORT cudaError_t cudaProfilerStop() { return cudaSuccess; }

// --- Errors ---------------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaGetLastError() {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

EXPORT cudaError_t cudaPeekAtLastError() { return last_error; }

namespace {

struct ErrorText {
  const char* name;
  const char* text;
};

// The texts are CUDA's own: programs look for them.
const std::map<int, ErrorText> error_texts = {
    {cudaSuccess, {"cudaSuccess", "no error"}},
    {cudaErrorInvalidValue, {"cudaErrorInvalidValue", "invalid argument"}},
    {cudaErrorMemoryAllocation, {"cudaErrorMemoryAllocation", "out of memory"}},
    {cudaErrorInvalidDevice, {"cudaErrorInvalidDevice", "invalid device ordinal"}},
    {cudaErrorInvalidResourceHandle, {"cudaErrorInvalidResourceHandle", "invalid resource handle"}},
    {cudaErrorIllegalState,
     {"cudaErrorIllegalState", "the operation cannot be performed in the present state"}},
    {cudaErrorNotReady, {"cudaErrorNotReady", "device not ready"}},
    {cudaErrorNotSupported, {"cudaErrorNotSupported", "operation not supported"}},
    {cudaErrorStreamCaptureUnsupported,
     {"cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"}},
    {cudaErrorStreamCaptureInvalidated,
     {"cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"}},
    {cudaErrorStreamCaptureMerge,
     {"cudaErrorStreamCaptureMerge", "operation would result in a merge of separate capture sequences"}},
    {cudaErrorStreamCaptureUnmatched,
     {"cudaErrorStreamCaptureUnmatched", "capture was not ended in the same stream as it began"}},
    {cudaErrorStreamCaptureUnjoined, {"cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"}},
    {cudaErrorStreamCaptureIsolation,
     {"cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"}},
    {cudaErrorStreamCaptureImplicit,
     {"cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"}},
    {cudaErrorCapturedEvent,
     {"cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"}},
    {cudaErrorStreamCaptureWrongThread,
     {"cudaErrorStreamCaptureWrongThread",
      "attempt to terminate a thread-local capture sequence from another thread"}},
};

}  // namespace

EXPORT const char* cudaGetErrorString(cudaError_t error) {
  auto entry = error_texts.find(error);
  return entry == error_texts.end() ? "unknown error" : entry->second.text;
}

EXPORT const char* cudaGetErrorName(cudaError_t error) {
  auto entry = error_texts.find(error);
  return entry == error_texts.end() ? "cudaErrorUnknown" : entry->second.name;
}
