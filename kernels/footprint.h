// Computes the size of a model on a kind of device, without the device.
#ifndef SLUICE_KERNELS_FOOTPRINT_H_
#define SLUICE_KERNELS_FOOTPRINT_H_

#include <cstdint>

#include "kernels/cores.h"
#include "kernels/model_spec.h"
#include "kernels/weight_store.h"

namespace sluice {

// The same as the backend's SlotBytes.
int64_t SlotBytes(DeviceKind device, const ModelSpec& spec);

// Adds up the bytes of the weights as a backend would hold them. It keeps nothing and reads no
// values: `data` of what it is given may be null.
class WeightSizer : public WeightStore {
 public:
  explicit WeightSizer(DeviceKind device) : device_(device) {}

  int64_t bytes() const { return bytes_; }

  absl::StatusOr<Linear> LoadLinear(absl::Span<const MatrixView> blocks) override;
  absl::StatusOr<Linear> LoadGateUp(const MatrixView& gate, const MatrixView& up) override;
  absl::StatusOr<Vector> LoadVector(const MatrixView& values) override;

 private:
  const DeviceKind device_;
  int64_t bytes_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_FOOTPRINT_H_
