// Functions of CUPTI that change nothing here. This file does not see its header, whose prototypes differ.
#include "journal.h"

#define IGNORED(name) \
  EXPORT int cupti##name(...) { return 0; /* CUPTI_SUCCESS */ }

IGNORED(ActivityEnableCudaEventDeviceTimestamps)
IGNORED(ActivityEnableDriverApi)
IGNORED(ActivityEnableRuntimeApi)
IGNORED(ActivitySetAttribute)
IGNORED(EnableCallback)
IGNORED(EnableDomain)
IGNORED(Finalize)
IGNORED(GetCallbackName)
IGNORED(Subscribe)
IGNORED(Unsubscribe)
