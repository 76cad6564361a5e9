// How sluiced ends: the codes that main.cc returns, and what --help says of them.
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
    {kExitDrained, "drained"},
    {kExitBadInput, "bad flags, model or tokenizer"},
    {kExitMemory, "not enough memory or threads"},
    {kExitDeviceFault, "device fault"},
    {kExitNotWritten, "drained but not every session written"},
};

}  // namespace sluice

#endif  // SLUICE_SERVER_EXIT_CODES_H_
