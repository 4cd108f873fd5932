// How stored values become real ones: real = float(double(stored) * scale + offset), the product
// and the sum rounded to double one after the other, the result to float once.
//
// Whole rows are brought over by vectorised loops, the same bits as one value at a time. A value
// of two words: copied freely; thread-safe; local.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lockstep::datasets {

class Scaling {
 public:
  Scaling() : Scaling(1.0, 0.0) {}
  Scaling(double scale, double offset);

  double scale() const { return scale_; }
  double offset() const { return offset_; }

  template <class T>
  float operator()(T stored) const {
    return static_cast<float>(static_cast<double>(stored) * scale_ + offset_);
  }

  // real[i] = (*this)(stored[i]) for i < count. T is an integer or float type that a Dataset keeps.
  template <class T>
  void apply(const T* stored, std::size_t count, float* real) const;

  // Whether 8-bit values take the way in float, at half the cost: see scaling.cpp.
  bool exact_in_float() const { return exact_in_float_; }

 private:
  double scale_;
  double offset_;
  // scale = high_ + low_ or almost; high_ has 16 significant bits, so that its product with an
  // 8-bit number is exact.
  float high_;
  float low_;
  bool exact_in_float_ = false;
};

}  // namespace lockstep::datasets
