#include "kernels/cpu/linear_recurrent.h"

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear_recurrent.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// Columns [col, col + kCols vectors): update them and give the first query head its output.
template <int kCols>
HWY_INLINE void UpdateColumns(const LinearRecurrentArgs& a, int64_t col) {
  V v[kCols], o[kCols];
  for (int c = 0; c < kCols; ++c) {
    v[c] = Load(a.v + col + c * kLanes);
    o[c] = Zero();
  }
  float* HWY_RESTRICT s = a.state + col;
  for (int64_t i = 0; i < a.dk; ++i, s += a.dv_padded) {
    const V alpha = Splat(a.alpha[i]), k = Splat(a.k[i]), q = Splat(a.q[i]);
    for (int c = 0; c < kCols; ++c) {
      const V updated = hn::MulAdd(k, v[c], hn::Mul(alpha, Load(s + c * kLanes)));
      Store(updated, s + c * kLanes);
      o[c] = hn::MulAdd(q, updated, o[c]);
    }
  }
  for (int c = 0; c < kCols; ++c) Store(o[c], a.o + col + c * kLanes);
}

// The other query heads of the group: the columns are still in the first-level cache.
template <int kCols>
HWY_INLINE void ReadColumns(const LinearRecurrentArgs& a, int64_t group, int64_t col) {
  const float* q = a.q + group * a.q_stride;
  V o[kCols];
  for (int c = 0; c < kCols; ++c) o[c] = Zero();
  const float* s = a.state + col;
  for (int64_t i = 0; i < a.dk; ++i, s += a.dv_padded) {
    for (int c = 0; c < kCols; ++c) o[c] = hn::MulAdd(Splat(q[i]), Load(s + c * kLanes), o[c]);
  }
  for (int c = 0; c < kCols; ++c) Store(o[c], a.o + group * a.dv_padded + col + c * kLanes);
}

template <int kCols>
HWY_INLINE int64_t Columns(const LinearRecurrentArgs& a, int64_t col) {
  for (; col + kCols * kLanes <= a.dv_padded; col += kCols * kLanes) {
    UpdateColumns<kCols>(a, col);
    for (int64_t group = 1; group < a.groups; ++group) ReadColumns<kCols>(a, group, col);
  }
  return col;
}

void LinearRecurrentSimd(const LinearRecurrentArgs& a) {
  const int64_t col = Columns<4>(a, 0);
  Columns<1>(a, col);
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(LinearRecurrentSimd);

}  // namespace

void LinearRecurrent(const LinearRecurrentArgs& args) {
  HWY_DYNAMIC_DISPATCH(LinearRecurrentSimd)(args);
}

}  // namespace sluice
#endif  // HWY_ONCE
