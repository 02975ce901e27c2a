// NVRTC: PyTorch compiles a few of its kernels (exp2, for example) when they are first called. Nothing is compiled here.
#include <cuda_runtime_api.h>
#include <nvrtc.h>

#include <cstring>
#include <string>

#include "journal.h"
#include "nvrtc_image.h"

struct _nvrtcProgram {
  std::string name;
};

namespace {

nvrtcResult write_image(char* target) {
  strcpy(target, kNvrtcImage);
  return NVRTC_SUCCESS;
}

nvrtcResult write_image_size(size_t* bytes) {
  *bytes = strlen(kNvrtcImage) + 1;
  return NVRTC_SUCCESS;
}

}  // namespace

EXPORT nvrtcResult nvrtcCreateProgram(nvrtcProgram* program, const char*, const char*, int, const char* const*,
                                      const char* const*) {
  *program = new _nvrtcProgram();
  return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
  delete *program;
  *program = nullptr;
  return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcAddNameExpression(nvrtcProgram program, const char* name) {
  program->name = name;
  return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcGetLoweredName(nvrtcProgram program, const char*, const char** name) {
  *name = program->name.c_str();
  return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcCompileProgram(nvrtcProgram, int, const char* const*) { return NVRTC_SUCCESS; }

EXPORT nvrtcResult nvrtcGetPTXSize(nvrtcProgram, size_t* bytes) { return write_image_size(bytes); }

EXPORT nvrtcResult nvrtcGetPTX(nvrtcProgram, char* image) { return write_image(image); }

EXPORT nvrtcResult nvrtcGetCUBINSize(nvrtcProgram, size_t* bytes) { return write_image_size(bytes); }

EXPORT nvrtcResult nvrtcGetCUBIN(nvrtcProgram, char* image) { return write_image(image); }

EXPORT nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram, size_t* bytes) {
  *bytes = 1;
  return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcGetProgramLog(nvrtcProgram, char* log) {
  *log = '\0';
  return NVRTC_SUCCESS;
}

// --- Versions and errors --------------------------------------------------------------------------------------------------

EXPORT nvrtcResult nvrtcVersion(int* major, int* minor) {
  *major = CUDART_VERSION / 1000;
  *minor = CUDART_VERSION % 1000 / 10;
  return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcGetNumSupportedArchs(int* count) {
  *count = 1;
  return NVRTC_SUCCESS;
}

EXPORT nvrtcResult nvrtcGetSupportedArchs(int* architectures) {
  *architectures = 90;
  return NVRTC_SUCCESS;
}

EXPORT const char* nvrtcGetErrorString(nvrtcResult) { return "error of the stand-in for NVRTC"; }
