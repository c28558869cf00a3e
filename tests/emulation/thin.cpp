// SPDX-License-Identifier: MIT
// Thin structures are found and held as their definition says, in every order of blocks and
// threads.
#include <algorithm>

#include "emulation.h"
#include "marginals.h"

namespace {

using namespace twins;
using crfseg::CoarseGrid;

using Map = std::vector<int>;  // labels of one image

struct Image {
  std::int64_t height, width;
  std::int64_t n_points() const { return height * width; }
};

// The border goes on as it ends.
int label_at(const Map& map, const Image& image, std::int64_t y, std::int64_t x) {
  y = std::min(std::max<std::int64_t>(y, 0), image.height - 1);
  x = std::min(std::max<std::int64_t>(x, 0), image.width - 1);
  return map[static_cast<std::size_t>(y * image.width + x)];
}

bool is_one_label(const Map& map, const Image& image, std::int64_t y, std::int64_t x, int side) {
  for (int i = 0; i < side * side; ++i) {
    if (label_at(map, image, y + i / side, x + i % side) != label_at(map, image, y, x)) {
      return false;
    }
  }
  return true;
}

// Pixels that no square of one label covers; squares hang over the border by up to side / 2.
std::vector<bool> thin_pixels(const Map& map, const Image& image, int side) {
  std::vector<bool> thin(map.size(), true);
  const int over = side / 2;
  for (std::int64_t y = -over; y + side <= image.height + over; ++y) {
    for (std::int64_t x = -over; x + side <= image.width + over; ++x) {
      if (!is_one_label(map, image, y, x, side)) continue;
      for (std::int64_t i = 0; i < image.n_points(); ++i) {
        const std::int64_t py = i / image.width, px = i % image.width;
        if (py >= y && py < y + side && px >= x && px < x + side) {
          thin[static_cast<std::size_t>(i)] = false;
        }
      }
    }
  }
  return thin;
}

std::int64_t count(const std::vector<bool>& mask) {
  return std::count(mask.begin(), mask.end(), true);
}

// Blobs with a pole, a beam and specks.
Map street(const Image& image, int n_labels, std::uint64_t seed) {
  Map map(static_cast<std::size_t>(image.n_points()), 0);
  check::Random random(seed);
  for (std::int64_t i = 0; i < image.n_points(); ++i) {
    const std::int64_t y = i / image.width, x = i % image.width;
    int& label = map[static_cast<std::size_t>(i)];
    label = static_cast<int>((y / 11 + x / 13) % n_labels);
    if (x == image.width / 3 || x == image.width - 1) label = n_labels - 1;
    if (y / 3 == image.height / 6) label = 1 % n_labels;
    if (random.bits() % 40 == 0) label = static_cast<int>(random.bits() % unsigned(n_labels));
  }
  return map;
}

// As street, but with nothing but noise from a row on.
Map noise_below(const Image& image, std::int64_t first_row) {
  Map map(static_cast<std::size_t>(image.n_points()), 0);
  for (std::int64_t i = first_row * image.width; i < image.n_points(); ++i) {
    map[static_cast<std::size_t>(i)] =
        1 + static_cast<int>((i / image.width + i % image.width) % 2);
  }
  return map;
}

// Probabilities whose most probable labels are those of a map.
void favour(const Map& map, std::int64_t item, Values* values) {
  for (std::size_t i = 0; i < map.size(); ++i) {
    const auto point = static_cast<std::int64_t>(i);
    float* own = &values->at(item, map[i], point);
    for (std::int64_t label = 0; label < values->n_labels; ++label) {
      *own = std::max(*own, values->at(item, label, point) * 1.01F);
    }
    float sum = 0.0F;
    for (std::int64_t l = 0; l < values->n_labels; ++l) sum += values->at(item, l, point);
    for (std::int64_t l = 0; l < values->n_labels; ++l) values->at(item, l, point) /= sum;
  }
}

// What the definition makes of probabilities.
Values held(Values values, const std::vector<Map>& maps, const Image& image, int side,
            double factor) {
  for (std::int64_t item = 0; item < values.n_items; ++item) {
    const auto thin = thin_pixels(maps[static_cast<std::size_t>(item)], image, side);
    const bool holds = side >= 2 && 2 * count(thin) <= image.n_points();
    for (std::int64_t point = 0; point < image.n_points(); ++point) {
      float top = 0.0F;
      for (std::int64_t label = 0; label < values.n_labels; ++label) {
        float& value = values.at(item, label, point);
        value = std::max(value, clip);
        top = std::max(top, value);
      }
      if (!holds || !thin[static_cast<std::size_t>(point)]) continue;
      for (std::int64_t label = 0; label < values.n_labels; ++label) {
        float& value = values.at(item, label, point);
        value = static_cast<float>(std::pow(double(value) / double(top), factor));
      }
    }
  }
  return values;
}

void check_thin(const Image& image, const std::vector<Map>& maps, int n_labels, int side) {
  const auto n_items = static_cast<std::int64_t>(maps.size());
  const Model model = model_of(n_items, image.height, image.width, n_labels);
  Values values =
      random_values(n_items, n_labels, image.n_points(), UnaryKind::probabilities, false);
  for (std::int64_t i = 0; i < n_items; ++i) favour(maps[std::size_t(i)], i, &values);
  const float factor = 32.0F;
  const Values expected = held(values, maps, image, side, factor);
  check_marginals(
      model,
      [&](crfseg::MeanField* field, std::int64_t item) {
        field->set_unary(expected.item(item), UnaryKind::probabilities, 1e-30F, 1);
      },
      [&](cuda::MeanField* field) {
        field->set_unary(values.all(), UnaryKind::probabilities, clip);
        field->hold_thin(side, factor);
      });
}

void check_all_thin() {
  for (const int side : {1, 2, 3, 4, 5, 8, 60}) {
    const Image image{37, 43};
    check_thin(image, {street(image, 4, 1), street(image, 4, 2)}, 4, side);
  }
  for (const Image& image :
       {Image{1, 1}, Image{1, 30}, Image{30, 1}, Image{2, 17}, Image{16, 16}}) {
    for (const int side : {2, 3, 6}) check_thin(image, {street(image, 3, 3)}, 3, side);
  }
  const Image image{9, 4};  // exactly half of it thin, and more than half
  CHECK(2 * count(thin_pixels(noise_below(image, 4), image, 2)) == image.n_points());
  CHECK(2 * count(thin_pixels(noise_below(image, 3), image, 2)) > image.n_points());
  check_thin(image, {noise_below(image, 4), noise_below(image, 3)}, 3, 2);
  check_thin({40, 40}, {Map(1600, 20)}, 21, 3);
}

// What is forbidden stays so, and the first of several most probable labels counts.
void check_held_energies() {
  const Model model = model_of(1, 12, 12, 3);
  Values values(1, 3, 144, false);
  for (std::int64_t point = 0; point < 144; ++point) {
    const bool is_pole = point % 12 == 5;
    values.at(0, 0, point) = is_pole ? 2.0F : 1.0F;
    values.at(0, 1, point) = 1.0F;  // equal elsewhere
    values.at(0, 2, point) = INFINITY;
  }
  const auto q = device_marginals(
      model,
      [&](cuda::MeanField* field) {
        field->set_unary(values.all(), UnaryKind::energies, clip);
        field->hold_thin(3, 4.0F);
      },
      0);
  for (std::size_t point = 0; point < 144; ++point) {
    const double expected = point % 12 == 5 ? 1.0 / (1.0 + std::exp(-4.0)) : 0.5;
    CHECK(std::abs(double(q[144 + point]) - expected) < 1e-6);
    CHECK(q[288 + point] == 0.0F);
  }
  const auto field = std::make_unique<cuda::MeanField>(cuda::Tiling::of(1, 144, 0, 16), 3,
                                                       twins::allocate(), nullptr);
  CHECK_THROWS(field->hold_thin(3, 4.0F), crfseg::Error);
}

// No order of blocks and threads changes anything.
void check_orders() {
  const Image image{37, 43};
  const Model model = model_of(2, image.height, image.width, 4);
  const CoarseGrid grid{9, 10, image.height, image.width, false};
  const Values scores = random_values(2, 4, 90, UnaryKind::logits, false);
  const SetDevice set = [&](cuda::MeanField* field) {
    field->set_coarse_unary(scores.all(), grid, UnaryKind::logits, clip);
    field->hold_thin(3, 32.0F);
  };
  const std::vector<float> in_order = device_marginals(model, set, 2);
  for (const std::uint64_t seed : {1, 2, 3}) {
    emulation::settings().seed = seed;
    CHECK(device_marginals(model, set, 2) == in_order);
  }
}

}  // namespace

int main() {
  check_all_thin();
  check_held_energies();
  check_orders();
  return check::result();
}
