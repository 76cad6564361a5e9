// The exit codes that main.cc returns, and what --help says about them.
#ifndef SLUICE_SERVER_EXIT_CODES_H_
#define SLUICE_SERVER_EXIT_CODES_H_

namespace sluice {

inline constexpr int kExitDrained = 0;
inline constexpr int kExitBadInput = 2;
inline constexpr int kExitMemory = 3;
inline constexpr int kExitDeviceFault = 70;
inline constexpr int kExitNotWritten = 74;

struct ExitCode {
  int code;
  const char* meaning;
};

inline constexpr ExitCode kExitCodes[] = {
    {kExitDrained, "The daemon drained."},
    {kExitBadInput, "A flag, the model or the tokenizer is bad."},
    {kExitMemory, "There is not enough memory, or there are too few threads."},
    {kExitDeviceFault, "The device failed."},
    {kExitNotWritten, "The daemon drained, but not every session was written."},
};

}  // namespace sluice

#endif  // SLUICE_SERVER_EXIT_CODES_H_
