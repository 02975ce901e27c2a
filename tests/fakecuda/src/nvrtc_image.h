// What the stand-in for NVRTC hands to the driver in place of a compiled kernel.
#pragma once

constexpr const char* kNvrtcImage = "kernel of the stand-in for NVRTC";
