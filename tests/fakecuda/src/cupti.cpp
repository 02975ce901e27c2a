// CUPTI: PyTorch's profiler subscribes, and is told of nothing. The library itself would look for its own interface of the
// driver, and recurse without end when it is missing. This file does not see the header of CUPTI, whose prototypes differ.
#include <cstdint>

#include "journal.h"

#define IGNORED(name) \
  EXPORT int cupti##name(...) { return 0; /* CUPTI_SUCCESS */ }

IGNORED(ActivityDisable)
IGNORED(ActivityEnable)
IGNORED(ActivityEnableCudaEventDeviceTimestamps)
IGNORED(ActivityEnableDriverApi)
IGNORED(ActivityEnableRuntimeApi)
IGNORED(ActivityFlushAll)
IGNORED(ActivityPopExternalCorrelationId)
IGNORED(ActivityPushExternalCorrelationId)
IGNORED(ActivityRegisterCallbacks)
IGNORED(ActivityRegisterTimestampCallback)
IGNORED(ActivitySetAttribute)
IGNORED(EnableCallback)
IGNORED(EnableDomain)
IGNORED(Finalize)
IGNORED(GetCallbackName)
IGNORED(Subscribe)
IGNORED(Unsubscribe)

EXPORT int cuptiActivityGetNextRecord(...) { return 12; /* CUPTI_ERROR_MAX_LIMIT_REACHED: no more records */ }

EXPORT int cuptiActivityGetNumDroppedRecords(void*, uint32_t, size_t* count) {
  *count = 0;
  return 0;
}

EXPORT int cuptiGetVersion(uint32_t* version) {
  *version = 130000;
  return 0;
}

EXPORT int cuptiGetResultString(int, const char** text) {
  *text = "error of the stand-in for CUPTI";
  return 0;
}
