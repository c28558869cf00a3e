// SPDX-License-Identifier: MIT
// Both twins find the same vertices, weights and neighbours, bit for bit; only numbers differ.
#include <map>
#include <set>

#include "emulation.h"
#include "twins.h"

namespace {

using twins::Scene;

// What an item's vertices are called by the device, by their names on the CPU. Every corner of
// every point, and every step to a neighbour, has to agree.
class Pairing {
 public:
  Pairing(const crfseg::Lattice& cpu, const twins::cuda::LatticeView& device)
      : cpu_(cpu), device_(device), neighbours_(cpu.blur_plan().neighbours(cpu, 1)) {}

  void check_item(std::int64_t item) {
    const twins::cuda::Tiling& tiling = device_.tiling;
    std::vector<std::pair<std::int64_t, int>> place(static_cast<std::size_t>(cpu_.n_points));
    for (std::int64_t tile = item * tiling.per_item; tile < (item + 1) * tiling.per_item; ++tile) {
      for (int slot = 0; slot < tiling.size(); ++slot) {
        const std::int64_t point = tiling.point(tile, slot);
        if (point >= 0) place[static_cast<std::size_t>(point)] = {tile, slot};
      }
    }
    for (std::int64_t s = 0; s < cpu_.strips.count; ++s) {
      for (std::int64_t p = cpu_.strips.begin(s); p < cpu_.strips.end(s); ++p) {
        check_point(s, p, place[static_cast<std::size_t>(p)]);
      }
    }
    check_neighbours();
  }

  std::int64_t paired() const { return static_cast<std::int64_t>(device_name_.size()); }

 private:
  void check_point(std::int64_t strip, std::int64_t p, std::pair<std::int64_t, int> place) {
    const int corners = cpu_.dim + 1, slots = device_.tiling.size();
    for (int k = 0; k < corners; ++k) {
      const std::uint32_t row = cpu_.row_of(strip, p, k);
      const std::int64_t at = (place.first * corners + k) * slots + place.second;
      pair(cpu_.local_vertex[cpu_.local_begin[strip] + row], device_.corner_vertex[at]);
      CHECK(cpu_.corner_weight[p * corners + k] == device_.corner_weight[at]);
    }
  }

  void pair(std::uint32_t on_cpu, std::uint32_t on_device) {
    const auto [found, is_new] = device_name_.emplace(on_cpu, on_device);
    CHECK(found->second == on_device);
    if (!is_new) return;
    CHECK(taken_.insert(on_device).second);
    open_.push_back(on_cpu);
  }

  void check_neighbours() {
    const auto absent = static_cast<std::uint32_t>(cpu_.n_vertices);
    while (!open_.empty()) {
      const std::uint32_t v = open_.back(), twin = device_name_[v];
      open_.pop_back();
      for (int axis = 0; axis <= cpu_.dim; ++axis) {
        for (int way = 0; way < 2; ++way) {
          const std::uint32_t here = neighbours_[(axis * cpu_.n_vertices + v) * 2 + way];
          const std::uint32_t there =
              device_.neighbours[2 * (axis * device_.n_vertices + twin) + way];
          CHECK((here == absent) == (there == twins::cuda::no_vertex));
          if (here != absent && there != twins::cuda::no_vertex) pair(here, there);
        }
      }
    }
  }

  const crfseg::Lattice& cpu_;
  const twins::cuda::LatticeView& device_;
  const crfseg::Buffer<std::uint32_t> neighbours_;
  std::map<std::uint32_t, std::uint32_t> device_name_;
  std::set<std::uint32_t> taken_;
  std::vector<std::uint32_t> open_;
};

// Splatting goes by rows: each corner of a tile is an entry of the row of its vertex, once.
void check_rows(const twins::cuda::LatticeView& view) {
  const int slots = view.tiling.size(), corners = view.dim + 1;
  std::vector<std::uint32_t> vertex_of_row(static_cast<std::size_t>(view.n_rows));
  for (std::int64_t v = 0; v < view.n_vertices; ++v) {
    for (std::uint32_t i = view.vertex_begin[v]; i < view.vertex_begin[v + 1]; ++i) {
      vertex_of_row[view.vertex_rows[i]] = static_cast<std::uint32_t>(v);
    }
  }
  for (std::int64_t tile = 0; tile < view.tiling.n_tiles(); ++tile) {
    std::map<std::pair<std::uint32_t, std::uint16_t>, float> expected, found;
    const std::int64_t first = tile * slots * corners;
    for (int i = 0; i < slots * corners; ++i) {
      if (view.tiling.point(tile, i % slots) < 0) continue;
      expected[{view.corner_vertex[first + i], static_cast<std::uint16_t>(i % slots)}] =
          view.corner_weight[first + i];
    }
    const int n = view.tiling.count(tile) * corners;
    for (std::uint32_t row = view.row_begin[tile]; row < view.row_begin[tile + 1]; ++row) {
      const int end = row + 1 < view.row_begin[tile + 1] ? view.row_entry[row + 1] : n;
      for (int i = view.row_entry[row]; i < end; ++i) {
        found[{vertex_of_row[row], view.entry_slot[first + i]}] = view.entry_weight[first + i];
      }
    }
    CHECK(expected == found);
  }
}

void check_scene(const Scene& scene, const std::vector<int>& fill, int passes) {
  const twins::cuda::Lattice device(twins::points_of(scene),
                                    twins::options_of(scene.dim(), fill, passes), twins::allocate(),
                                    nullptr);
  std::int64_t n_vertices = 0;
  for (std::int64_t item = 0; item < scene.n_items; ++item) {
    const crfseg::Lattice cpu(twins::pixels_of(scene, item), fill, passes, 1);
    Pairing pairing(cpu, device.view());
    pairing.check_item(item);
    CHECK(pairing.paired() == cpu.n_vertices);
    n_vertices += cpu.n_vertices;
  }
  CHECK(n_vertices == device.view().n_vertices);
  check_rows(device.view());
}

// Keys are distinct, and sorted where nothing was filled in.
void check_keys() {
  const Scene scene = twins::scene(1, 20, 30, 3, 8.0F, 10.0F, 5);
  const twins::cuda::Lattice device(twins::points_of(scene), twins::options_of(scene.dim(), {}, 1),
                                    twins::allocate(), nullptr);
  const std::vector<std::uint64_t> keys = device.keys(nullptr);
  CHECK(keys.size() == 2 * static_cast<std::size_t>(device.view().n_vertices));
  for (std::size_t v = 1; 2 * v < keys.size(); ++v) CHECK(keys[2 * v - 2] < keys[2 * v]);
}

void check_out_of_bounds() {
  const Scene scene = twins::scene(2, 5, 6, 3, 8.0F, 10.0F, 5);
  twins::cuda::Points points = twins::points_of(scene);
  // Greens of the second image lie above the bound.
  points.hi[3] = 60.0F * points.inverse_sigmas[3];
  std::int64_t first = 0;
  while (scene.channels[3 * static_cast<std::size_t>(first) + 1] <= 60) ++first;
  try {
    const twins::cuda::Lattice device(points, twins::options_of(5, {}, 1), twins::allocate(),
                                      nullptr);
    CHECK(false);
  } catch (const twins::cuda::OutOfBounds& e) {
    CHECK(e.point == first);
  }
}

// With room given instead of counted, nothing but the room differs.
void check_room() {
  const Scene scene = twins::scene(1, 20, 30, 3, 8.0F, 10.0F, 5);
  const twins::cuda::Points points = twins::points_of(scene);
  twins::cuda::BuildOptions options = twins::options_of(5, {}, 1);
  const twins::cuda::Lattice counted(points, options, twins::allocate(), nullptr);
  options.room_for_rows = counted.view().n_rows + 70;
  options.room_for_vertices = counted.view().n_vertices + 5;
  const twins::cuda::Lattice roomy(points, options, twins::allocate(), nullptr);
  roomy.check(nullptr);
  const std::int64_t n = 20 * 32 * 6;
  CHECK(std::equal(counted.view().corner_vertex, counted.view().corner_vertex + n,
                   roomy.view().corner_vertex));
  check_rows(roomy.view());
  options.room_for_vertices = counted.view().n_vertices - 1;
  const twins::cuda::Lattice narrow(points, options, twins::allocate(), nullptr);
  CHECK_THROWS(narrow.check(nullptr), twins::cuda::NoRoom);
  options.room_for_vertices += 6;
  options.room_for_rows = counted.view().n_rows - 1;
  const twins::cuda::Lattice short_of_rows(points, options, twins::allocate(), nullptr);
  CHECK_THROWS(short_of_rows.check(nullptr), twins::cuda::NoRoom);
}

}  // namespace

int main() {
  check_scene(twins::scene(1, 37, 29, 3, 8.0F, 12.0F, 1), {}, 1);
  check_scene(twins::scene(3, 17, 33, 3, 3.0F, 5.0F, 2), {}, 1);
  check_scene(twins::scene(2, 20, 40, 0, 3.0F, 1.0F, 3), {}, 1);
  check_scene(twins::scene(1, 9, 11, 1, 4.0F, 6.0F, 4), {1, 4}, 2);
  check_scene(twins::scene(1, 12, 13, 3, 6.0F, 20.0F, 6), {4}, 2);
  check_scene(twins::scene(2, 6, 9, 8, 5.0F, 9.0F, 7), {}, 1);   // keys of 128 bits
  check_scene(twins::scene(1, 5, 7, 14, 5.0F, 9.0F, 8), {}, 1);  // 16 dimensions
  check_scene(twins::scene(1, 1, 1, 3, 5.0F, 9.0F, 9), {}, 1);
  check_keys();
  check_out_of_bounds();
  check_room();
  emulation::settings().seed = 7;
  check_scene(twins::scene(2, 18, 19, 3, 8.0F, 12.0F, 10), {}, 1);
  return check::result();
}
