// What a handle of cuBLAS remembers.
#pragma once

#include "journal.h"

struct BlasHandle {
  void* stream = nullptr;
  int math_mode = 0;
  int pointer_mode = 0;
};

EXPORT int fakecuda_blas_launch(void* handle, const char* routine);
