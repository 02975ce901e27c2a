// Functions of the driver that are looked up when a library is loaded, and not needed by what the tests run. This file does
// not see the driver's header, whose prototypes differ.
#define NOT_SUPPORTED(name) \
  extern "C" __attribute__((visibility("default"))) int name() { return 801; /* CUDA_ERROR_NOT_SUPPORTED */ }

NOT_SUPPORTED(cuTensorMapEncodeTiled)
NOT_SUPPORTED(cuTensorMapEncodeIm2col)
NOT_SUPPORTED(cuLinkCreate_v2)
NOT_SUPPORTED(cuLinkAddData_v2)
NOT_SUPPORTED(cuLinkComplete)
