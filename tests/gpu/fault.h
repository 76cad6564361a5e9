// Real faults: a kernel that writes where there is no memory, after which the process's device is
// lost, and one that does not end.
#ifndef SLUICE_TESTS_GPU_FAULT_H_
#define SLUICE_TESTS_GPU_FAULT_H_

namespace sluice {

// On GPU `device`; returns at once.
void CauseFault(int device);
// Kernels that leave no room for others for this long.
void CauseHang(int device, int seconds);

}  // namespace sluice

#endif  // SLUICE_TESTS_GPU_FAULT_H_
