// The routines of cuBLAS, all alike: they read the handle, their first argument, and ignore the others. This file does not
// see the header of cuBLAS, whose prototypes differ.
#include "blas_handle.h"

#define ROUTINE(name) \
  EXPORT int cublas##name(void* handle, ...) { return fakecuda_blas_launch(handle, #name); }

#define ROUTINES_OF_TYPE(letter)        \
  ROUTINE(letter##gemm_v2)              \
  ROUTINE(letter##gemmBatched)          \
  ROUTINE(letter##gemmStridedBatched)   \
  ROUTINE(letter##gemv_v2)              \
  ROUTINE(letter##trsm_v2)              \
  ROUTINE(letter##trsmBatched)          \
  ROUTINE(letter##getrfBatched)         \
  ROUTINE(letter##getrsBatched)         \
  ROUTINE(letter##geqrfBatched)         \
  ROUTINE(letter##gelsBatched)

ROUTINES_OF_TYPE(S)
ROUTINES_OF_TYPE(D)
ROUTINES_OF_TYPE(C)
ROUTINES_OF_TYPE(Z)

ROUTINE(Sdot_v2)
ROUTINE(Ddot_v2)
ROUTINE(Cdotc_v2)
ROUTINE(Cdotu_v2)
ROUTINE(Zdotc_v2)
ROUTINE(Zdotu_v2)
ROUTINE(DotEx)
ROUTINE(SgemmEx)
ROUTINE(GemmEx)
ROUTINE(GemmStridedBatchedEx)
