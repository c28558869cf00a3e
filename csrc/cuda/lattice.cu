// SPDX-License-Identifier: MIT
#include <algorithm>
#include <utility>

#include "cuda/arrays.h"
#include "cuda/build.cuh"
#include "cuda/grid.h"
#include "cuda/lattice.h"
#include "cuda/primitives.h"
#include "cuda/with_dim.h"
#include "math/key_ranges.h"

namespace crfseg {
namespace cuda {
namespace {

int bits_of(std::int64_t highest) {
  int bits = 0;
  while ((std::int64_t{1} << bits) <= highest) ++bits;
  return bits;
}

}  // namespace

// The steps of a build, in their order.
template <class Key>
class Lattice::Builder {
 public:
  Builder(const Points& points, const KeyRanges& ranges, const BuildOptions& options,
          Lattice* lattice, const Allocate& allocate, Stream stream)
      : points_(points),
        options_(options),
        lattice_(*lattice),
        view_(lattice->view_),
        allocate_(allocate),
        stream_(stream),
        ranges_(ranges),
        layout_(ranges),
        item_shift_(ranges.total_bits),
        key_bits_(ranges.total_bits + bits_of(points.n_items - 1)) {}

  void build() {
    find_tiles();
    gather();
    number();
    link();
    for (const int at_least : options_.fill) add_missing(at_least);
    list_runs_of_rows();
    lattice_.keys_ = keys_.memory();
  }

 private:
  // Arrays that the lattice keeps.
  template <class T>
  Array<T> kept(std::int64_t size) {
    const Array<T> array(size, allocate_);
    lattice_.memory_.push_back(array.memory());
    lattice_.nbytes_ += array.nbytes();
    return array;
  }
  template <class T>
  Array<T> passing(std::int64_t size) {
    return Array<T>(size, allocate_);
  }

  void find_tiles() {
    const std::int64_t n_tiles = view_.tiling.n_tiles();
    stride_ = std::int64_t{view_.tiling.size()} * (view_.dim + 1);
    corner_ = kept<std::uint32_t>(n_tiles * stride_);
    const auto weights = kept<float>(n_tiles * stride_);
    const auto entry_slot = kept<std::uint16_t>(n_tiles * stride_);
    const auto entry_weight = kept<float>(n_tiles * stride_);
    row_begin_ = kept<std::uint32_t>(n_tiles + 1);
    tile_keys_ = passing<Key>(n_tiles * stride_);
    tile_entries_ = passing<std::uint16_t>(n_tiles * stride_);
    report_ = passing<BuildReport>(1);
    lattice_.report_ = report_.memory();
    fill_bytes(report_.data(), 0, sizeof(BuildReport), stream_);
    fill_bytes(row_begin_.data(), 0, sizeof(std::uint32_t), stream_);
    TileOutput<Key> out{layout_,
                        {},
                        item_shift_,
                        corner_.data(),
                        weights.data(),
                        entry_slot.data(),
                        entry_weight.data(),
                        row_begin_.data() + 1,
                        tile_keys_.data(),
                        tile_entries_.data(),
                        report_.data()};
    std::copy_n(ranges_.scale, view_.dim, out.scale);
    with_dim(view_.dim, [&](auto dim) {
      const std::size_t shared = tile_shared_bytes<Key>(static_cast<int>(stride_), block_threads);
      CRFSEG_LAUNCH((build_tiles<decltype(dim)::value, Key>), blocks_of(n_tiles), block_threads,
                    shared, stream_, points_, view_.tiling, out);
    });
    sum_up(row_begin_.data() + 1, n_tiles, row_begin_.data() + 1, allocate_, stream_);
    view_.corner_vertex = corner_.data();
    view_.corner_weight = weights.data();
    view_.entry_slot = entry_slot.data();
    view_.entry_weight = entry_weight.data();
    view_.row_begin = row_begin_.data();
  }

  void gather() {
    const std::int64_t n_tiles = view_.tiling.n_tiles();
    view_.n_rows = options_.room_for_rows > 0 ? options_.room_for_rows
                                              : std::int64_t{row_begin_.read(n_tiles, stream_)};
    const auto row_entry = kept<std::uint16_t>(view_.n_rows);
    const auto vertex_rows = kept<std::uint32_t>(view_.n_rows);
    const auto keys = passing<Key>(view_.n_rows);
    const auto rows = passing<std::uint32_t>(view_.n_rows);
    sorted_keys_ = passing<Key>(view_.n_rows);
    CRFSEG_LAUNCH((gather_rows<Key>), blocks_of(n_tiles), block_threads, 0, stream_, n_tiles,
                  stride_, view_.n_rows, row_begin_.data(), tile_keys_.data(), tile_entries_.data(),
                  keys.data(), row_entry.data(), rows.data(), report_.data());
    // Padding lies behind all keys only if all of its bits are looked at.
    const int bits = options_.room_for_rows > 0 ? static_cast<int>(8 * sizeof(Key)) : key_bits_;
    sort_pairs(keys.data(), rows.data(), view_.n_rows, bits, sorted_keys_.data(),
               vertex_rows.data(), allocate_, stream_);
    view_.row_entry = row_entry.data();
    view_.vertex_rows = vertex_rows.data();
    tile_keys_ = {};
    tile_entries_ = {};
  }

  void number() {
    const std::int64_t n_rows = view_.n_rows;
    const auto numbers = passing<std::uint32_t>(n_rows);
    CRFSEG_LAUNCH((mark_heads<Key>), elementwise(n_rows), block_threads, 0, stream_, n_rows,
                  sorted_keys_.data(), numbers.data());
    sum_up(numbers.data(), n_rows, numbers.data(), allocate_, stream_);
    n_ = options_.room_for_vertices > 0 ? options_.room_for_vertices
                                        : std::int64_t{numbers.read(n_rows - 1, stream_)};
    const auto row_vertex = passing<std::uint32_t>(n_rows);
    vertex_begin_ = passing<std::uint32_t>(n_ + 1);
    keys_ = passing<Key>(n_);
    CRFSEG_LAUNCH((number_vertices<Key>), elementwise(n_rows), block_threads, 0, stream_, n_rows,
                  sorted_keys_.data(), view_.vertex_rows, numbers.data(), n_, row_vertex.data(),
                  keys_.data(), vertex_begin_.data(), report_.data());
    const std::int64_t n_tiles = view_.tiling.n_tiles();
    CRFSEG_LAUNCH(name_corners, blocks_of(n_tiles), block_threads, 0, stream_, n_tiles, stride_,
                  n_rows, row_begin_.data(), row_vertex.data(), corner_.data());
    // In order of their keys already.
    const auto vertices = passing<std::uint32_t>(n_);
    CRFSEG_LAUNCH(count_up, elementwise(n_), block_threads, 0, stream_, n_, vertices.data());
    lookup_keys_ = keys_;
    lookup_vertices_ = vertices;
    sorted_keys_ = {};
  }

  void link() {
    neighbours_ = passing<std::uint32_t>(2 * (view_.dim + 1) * n_);
    fill_bytes(neighbours_.data(), 0xFF, static_cast<std::size_t>(neighbours_.nbytes()), stream_);
    const VertexLookup<Key> lookup{lookup_keys_.data(), lookup_vertices_.data(), n_};
    CRFSEG_LAUNCH((link_neighbours<Key>), elementwise(n_ * (view_.dim + 1)), block_threads, 0,
                  stream_, layout_, view_.dim, keys_.data(), lookup, neighbours_.data());
  }

  // Adds vertices that are neighbours of at least so many of those there.
  void add_missing(int at_least) {
    const auto ends = passing<std::uint32_t>(n_);
    CRFSEG_LAUNCH(count_missing, elementwise(n_), block_threads, 0, stream_, n_, view_.dim,
                  neighbours_.data(), ends.data());
    sum_up(ends.data(), n_, ends.data(), allocate_, stream_);
    const std::int64_t n_missing = ends.read(n_ - 1, stream_);
    const std::int64_t bytes = n_missing * static_cast<std::int64_t>(2 * sizeof(Key) + 12);
    if (options_.max_bytes > 0 && bytes > options_.max_bytes) throw TooLarge(bytes);
    if (n_missing == 0) return;
    const auto missing = passing<Key>(n_missing), sorted = passing<Key>(n_missing);
    const auto places = passing<std::uint32_t>(n_missing),
               marks = passing<std::uint32_t>(n_missing);
    CRFSEG_LAUNCH((list_missing<Key>), elementwise(n_), block_threads, 0, stream_, layout_, n_,
                  view_.dim, keys_.data(), neighbours_.data(), ends.data(), missing.data());
    // What goes along with the keys does not matter.
    sort_pairs(missing.data(), marks.data(), n_missing, key_bits_, sorted.data(), places.data(),
               allocate_, stream_);
    CRFSEG_LAUNCH((mark_frequent<Key>), elementwise(n_missing), block_threads, 0, stream_,
                  n_missing, sorted.data(), std::int64_t{at_least}, marks.data());
    sum_up(marks.data(), n_missing, marks.data(), allocate_, stream_);
    const std::int64_t n_added = marks.read(n_missing - 1, stream_);
    if (n_added > 0) append(sorted, marks, n_added);
  }

  void append(const Array<Key>& candidates, const Array<std::uint32_t>& numbers,
              std::int64_t n_added) {
    const std::int64_t before = n_, n_rows = view_.n_rows;
    if (before + n_added >= std::int64_t{no_vertex}) throw Error("a lattice has 2^32 vertices");
    const auto keys = passing<Key>(before + n_added);
    copy_on_device(keys.data(), keys_.data(), static_cast<std::size_t>(keys_.nbytes()), stream_);
    CRFSEG_LAUNCH((keep_marked<Key>), elementwise(candidates.size()), block_threads, 0, stream_,
                  candidates.size(), candidates.data(), numbers.data(), keys.data() + before);
    const auto begin = passing<std::uint32_t>(before + n_added + 1);
    copy_on_device(begin.data(), vertex_begin_.data(),
                   static_cast<std::size_t>(before) * sizeof(std::uint32_t), stream_);
    CRFSEG_LAUNCH(fill_words, elementwise(n_added + 1), block_threads, 0, stream_, n_added + 1,
                  static_cast<std::uint32_t>(n_rows), begin.data() + before);
    n_ = before + n_added;
    keys_ = keys;
    vertex_begin_ = begin;
    const auto vertices = passing<std::uint32_t>(n_);
    CRFSEG_LAUNCH(count_up, elementwise(n_), block_threads, 0, stream_, n_, vertices.data());
    lookup_keys_ = passing<Key>(n_);
    lookup_vertices_ = passing<std::uint32_t>(n_);
    sort_pairs(keys_.data(), vertices.data(), n_, key_bits_, lookup_keys_.data(),
               lookup_vertices_.data(), allocate_, stream_);
    link();
  }

  void list_runs_of_rows() {
    view_.n_vertices = n_;
    keep(vertex_begin_, &view_.vertex_begin);
    keep(neighbours_, &view_.neighbours);
    const auto run_end = kept<std::uint32_t>(n_), heavy = kept<std::uint32_t>(view_.most_runs());
    const auto run_vertex = kept<std::uint32_t>(view_.most_runs()),
               numbers = kept<std::uint32_t>(n_);
    CRFSEG_LAUNCH(count_runs, elementwise(n_), block_threads, 0, stream_, n_, vertex_begin_.data(),
                  run_end.data());
    sum_up(run_end.data(), n_, run_end.data(), allocate_, stream_);
    CRFSEG_LAUNCH(list_runs, elementwise(n_), block_threads, 0, stream_, n_, run_end.data(),
                  run_vertex.data());
    CRFSEG_LAUNCH(mark_heavy, elementwise(n_), block_threads, 0, stream_, n_, vertex_begin_.data(),
                  numbers.data());
    sum_up(numbers.data(), n_, numbers.data(), allocate_, stream_);
    CRFSEG_LAUNCH(list_heavy, elementwise(n_), block_threads, 0, stream_, n_, numbers.data(),
                  heavy.data());
    view_.run_end = run_end.data();
    view_.run_vertex = run_vertex.data();
    view_.heavy = heavy.data();
    view_.n_heavy = numbers.data() + n_ - 1;
  }

  template <class T>
  void keep(const Array<T>& array, const T** view) {
    lattice_.memory_.push_back(array.memory());
    lattice_.nbytes_ += array.nbytes();
    *view = array.data();
  }

  const Points& points_;
  const BuildOptions& options_;
  Lattice& lattice_;
  LatticeView& view_;
  const Allocate& allocate_;
  Stream stream_;
  KeyRanges ranges_;
  KeyLayout<Key> layout_;
  int item_shift_, key_bits_;
  std::int64_t stride_ = 0, n_ = 0;  // corners of a tile; vertices
  Array<std::uint32_t> corner_, row_begin_, vertex_begin_, neighbours_;
  Array<Key> tile_keys_, sorted_keys_, keys_, lookup_keys_;
  Array<std::uint16_t> tile_entries_;
  Array<std::uint32_t> lookup_vertices_;
  Array<BuildReport> report_;
};

namespace {

KeyRange too_wide(const Points& points) {
  int widest = 0;
  for (int axis = 1; axis < points.dim; ++axis) {
    if (points.hi[axis] - points.lo[axis] > points.hi[widest] - points.lo[widest]) widest = axis;
  }
  return {widest, points.lo[widest], points.hi[widest]};
}

}  // namespace

Lattice::Lattice(const Points& points, const BuildOptions& options, const Allocate& allocate,
                 Stream stream)
    : fill_(options.fill), passes_(options.passes), n_points_(points.n_items * points.n_points) {
  view_.dim = points.dim;
  view_.is_bounded = options.room_for_rows > 0;
  view_.tiling = Tiling::of(points.n_items, points.n_points, points.width, options.side);
  if (view_.tiling.n_slots() * (points.dim + 1) >= std::int64_t{no_vertex}) {
    throw Error("a lattice on a device has less than 2^32 corners");
  }
  const KeyRanges ranges = KeyRanges::of(
      points.dim, options.passes, static_cast<int>(options.fill.size()), points.lo, points.hi);
  // One bit more than is needed: no key has all bits set.
  const int bits = ranges.total_bits + bits_of(points.n_items - 1) + 1;
  if (bits > 128 && points.n_items > 1) throw TooManyItems(points.n_items);
  if (bits > 128) throw too_wide(points);
  has_wide_keys_ = bits > 64;
  if (has_wide_keys_) {
    Builder<WideKey>(points, ranges, options, this, allocate, stream).build();
  } else {
    Builder<NarrowKey>(points, ranges, options, this, allocate, stream).build();
  }
  if (options.room_for_rows == 0) check(stream);
}

void Lattice::check(Stream stream) const {
  BuildReport report;
  copy_to_host(&report, report_.get(), sizeof(report), stream);
  if (report.bad_from_end > 0) throw OutOfBounds(n_points_ - report.bad_from_end);
  if (report.rows_left_out > 0) throw NoRoom("rows", report.rows_left_out);
  if (report.vertices_left_out > 0) throw NoRoom("vertices", report.vertices_left_out);
}

Lattice Lattice::repeated(std::int64_t n_items) const {
  Lattice lattice = *this;
  lattice.view_.tiling.n_items = n_items;
  lattice.view_.is_repeated = true;
  return lattice;
}

std::vector<std::uint64_t> Lattice::keys(Stream stream) const {
  const auto n = static_cast<std::size_t>(view_.n_vertices);
  std::vector<std::uint64_t> words(2 * n, 0);
  copy_to_host(words.data(), keys_.get(), (has_wide_keys_ ? 16 : 8) * n, stream);
  if (has_wide_keys_) return words;
  for (std::size_t i = n; i-- > 0;) {
    words[2 * i] = words[i];
    words[2 * i + 1] = 0;
  }
  return words;
}

}  // namespace cuda
}  // namespace crfseg
