// libcuda.so.1: the part of the driver that PyTorch and Triton call. A context is a device; kernels are
// Triton's, or NVRTC's.
#include <cuda.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "journal.h"
#include "nvrtc_image.h"

namespace {

struct Module {
  const char* library;
  int device;  // of the context that it was loaded in
};

struct Function {
  std::string name;
  const Module* module;
};

CUcontext context_of(int device) { return reinterpret_cast<CUcontext>(static_cast<intptr_t>(device + 1)); }

int device_of(CUcontext context) { return static_cast<int>(reinterpret_cast<intptr_t>(context)) - 1; }

CUresult launch(CUfunction handle, CUstream stream, unsigned x, unsigned y, unsigned z) {
  auto* function = reinterpret_cast<Function*>(handle);
  if (function->module->device != fakecuda_device()) return CUDA_ERROR_INVALID_HANDLE;
  char detail[64];
  snprintf(detail, sizeof(detail), "grid=%ux%ux%u", x, y, z);
  // The errors of the driver have the numbers of the runtime's.
  return static_cast<CUresult>(fakecuda_launch(stream, function->module->library, function->name.c_str(), detail));
}

}  // namespace

// --- Devices and contexts -------------------------------------------------------------------------------------------------

EXPORT CUresult cuInit(unsigned) { return CUDA_SUCCESS; }

EXPORT CUresult cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int* count) {
  *count = fakecuda_device_count();
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice* device, int index) {
  if (index < 0 || index >= fakecuda_device_count()) return CUDA_ERROR_INVALID_DEVICE;
  *device = index;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *value = 9;
      break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *value = 132;
      break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      *value = 32;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
      *value = 65536;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      *value = 49152;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      *value = 232448;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      *value = 233472;
      break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
      *value = 1980000;
      break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
      *value = 2619000;
      break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
      *value = 5120;
      break;
    default:
      *value = 0;
  }
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  *context = context_of(device);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* is_active) {
  *flags = 0;
  *is_active = fakecuda_is_device_in_use(device);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = context_of(fakecuda_device());
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
  fakecuda_set_device(device_of(context));
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice* device) {
  *device = fakecuda_device();
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetLimit(size_t* value, CUlimit) {
  *value = 1 << 20;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetLimit(CUlimit, size_t) { return CUDA_SUCCESS; }

EXPORT CUresult cuGetErrorString(CUresult error, const char** text) {
  switch (error) {
    case CUDA_ERROR_INVALID_HANDLE:
      *text = "invalid resource handle";
      break;
    case CUDA_ERROR_STREAM_CAPTURE_INVALIDATED:
      *text = "operation failed due to a previous error during capture";
      break;
    case CUDA_ERROR_STREAM_CAPTURE_IMPLICIT:
      *text = "operation would make the legacy stream depend on a capturing blocking stream";
      break;
    default:
      *text = "unknown error";
  }
  return CUDA_SUCCESS;
}

// --- Modules and functions ------------------------------------------------------------------------------------------------

EXPORT CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  bool is_nvrtc = strncmp(static_cast<const char*>(image), kNvrtcImage, strlen(kNvrtcImage)) == 0;
  *module = reinterpret_cast<CUmodule>(new Module{is_nvrtc ? "nvrtc" : "triton", fakecuda_device()});
  return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
  return cuModuleLoadData(module, image);
}

// What the file holds does not matter: PyTorch loads the kernels of torch.compile from files.
EXPORT CUresult cuModuleLoad(CUmodule* module, const char*) { return cuModuleLoadData(module, ""); }

// Modules stay: functions refer to them.
EXPORT CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }

EXPORT CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  *function = reinterpret_cast<CUfunction>(new Function{name, reinterpret_cast<Module*>(module)});
  return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction) {
  *value = 0;
  if (attribute == CU_FUNC_ATTRIBUTE_NUM_REGS) *value = 64;
  if (attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK) *value = 1024;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }

EXPORT CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }

EXPORT CUresult cuOccupancyMaxActiveClusters(int* clusters, CUfunction, const CUlaunchConfig*) {
  *clusters = 1;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int, size_t) {
  *blocks = 2;
  return CUDA_SUCCESS;
}

// --- Launches -------------------------------------------------------------------------------------------------------------

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned, unsigned, unsigned,
                               unsigned, CUstream stream, void**, void**) {
  return launch(function, stream, x, y, z);
}

EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig* configuration, CUfunction function, void**, void**) {
  return launch(function, configuration->hStream, configuration->gridDimX, configuration->gridDimY,
                configuration->gridDimZ);
}

EXPORT CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned, unsigned,
                                          unsigned, unsigned, CUstream stream, void**) {
  return launch(function, stream, x, y, z);
}

EXPORT CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  *status = fakecuda_is_capturing(stream) ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}

// --- Pointers: Triton asks whether an argument lies on the device ---------------------------------------------------------

EXPORT CUresult cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr pointer) {
  void* start = nullptr;
  size_t bytes = 0;
  int device = 0;
  if (!fakecuda_find_allocation(reinterpret_cast<void*>(pointer), &start, &bytes, &device)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *static_cast<CUdeviceptr*>(value) = pointer;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(value) = device;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      *static_cast<void**>(value) = start;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *static_cast<size_t*>(value) = bytes;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

EXPORT CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* attributes, void** values,
                                       CUdeviceptr pointer) {
  for (unsigned index = 0; index < count; index++) {
    CUresult result = cuPointerGetAttribute(values[index], attributes[index], pointer);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}
