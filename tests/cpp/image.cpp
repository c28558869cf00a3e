// SPDX-License-Identifier: MIT
#include "image.h"

#include "check.h"

namespace {

// The value of one row of scores at a position, clamped to its ends.
double sample(const std::vector<float>& row, double position) {
  const double last = static_cast<double>(row.size()) - 1.0;
  const double at = std::fmin(std::fmax(position, 0.0), last);
  const double left = std::floor(at);
  const double right = std::fmin(left + 1.0, last);
  const double share = at - left;
  return (1.0 - share) * row[std::size_t(left)] + share * row[std::size_t(right)];
}

double position(std::int64_t i, std::int64_t from, std::int64_t to, bool align_corners) {
  if (align_corners) return to == 1 ? 0.0 : double(i) * double(from - 1) / double(to - 1);
  return (double(i) + 0.5) * double(from) / double(to) - 0.5;
}

void upsampling_is_bilinear(std::int64_t rows, std::int64_t columns, std::int64_t height,
                            std::int64_t width, bool align_corners) {
  const std::int64_t labels = 3;
  const auto scores = check::Random(1).uniforms(labels * rows * columns, -5.0F, 5.0F);
  std::vector<float> found(static_cast<std::size_t>(labels * height * width));
  crfseg::upsample(scores.data(), labels, rows, columns, height, width, align_corners, 2,
                   found.data());
  for (std::int64_t label = 0; label < labels; ++label) {
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        std::vector<float> column;
        for (std::int64_t row = 0; row < rows; ++row) {
          const float* begin = scores.data() + (label * rows + row) * columns;
          column.push_back(static_cast<float>(sample(std::vector<float>(begin, begin + columns),
                                                     position(x, columns, width, align_corners))));
        }
        const double expected = sample(column, position(y, rows, height, align_corners));
        const float value = found[std::size_t((label * height + y) * width + x)];
        CHECK(std::abs(value - expected) < 1e-4);  // positions are float32 of a few hundred
      }
    }
  }
}

}  // namespace

int main() {
  for (bool align_corners : {false, true}) {
    upsampling_is_bilinear(4, 5, 32, 40, align_corners);
    upsampling_is_bilinear(4, 5, 25, 33, align_corners);
    upsampling_is_bilinear(1, 1, 9, 7, align_corners);
    upsampling_is_bilinear(6, 3, 6, 3, align_corners);
    upsampling_is_bilinear(3, 4, 1, 1, align_corners);
  }
  return check::result();
}
