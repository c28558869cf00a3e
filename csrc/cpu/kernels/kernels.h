// SPDX-License-Identifier: MIT
// The inner loops: all .cpp files of this folder, compiled once per instruction set and chosen at
// run time (dispatch.cpp). Plain structs and pointers only: code shared with other translation
// units could be kept by the linker in a version the machine does not have.
//
// A row is `width` floats, one per label, padded: width is 1, 4, or a multiple of 8.
#pragma once

#include <cstddef>
#include <cstdint>

namespace crfseg {
namespace kernels {

constexpr int simplex_lanes = 8;
constexpr int max_corners = 17;
constexpr float log_zero = -1e30F;  // the logarithm of a forbidden label, and of padding

// How points are elevated and vertices packed (cpu/key_layout.h): what find_simplices must know of
// it.
struct SimplexFrame {
  int dim;
  float scale[max_corners];
  int shift[max_corners];  // of each quotient in a 64-bit key
  std::uint64_t lowest;    // the packed lowest quotients
};

// Simplices of up to `simplex_lanes` points (math/permutohedral.h), lane by lane.
struct Simplices {
  std::int32_t quotient[max_corners][simplex_lanes];
  std::int32_t rank[max_corners][simplex_lanes];
  float weight[max_corners][simplex_lanes];
  std::uint64_t origin[simplex_lanes];  // key of the remainder-0 vertex, where 64 bits hold it
  std::uint64_t order[simplex_lanes];   // of the coordinates: with the origin, it names the simplex
};

// A run of points and where they sit in one lattice. Weights are (n, corners).
struct Corners {
  int corners;
  const std::uint32_t* row;  // (n, corners)
  const float* weight;
};

// One pairwise term as the points of one strip see it.
struct Message {
  Corners at;
  const float* slice_scale;  // (n) or null: normalisation of what is read
  const float* splat_scale;  // (n) or null: normalisation of what is added
  const float* incoming;     // rows of -w mu V, V the blurred sums; null in the first pass
  float* outgoing;           // rows to which Q is added; null in the last pass
  const float* self;         // (n) or null: the diagonal of the filter, to be left out
  const float* self_factor;  // (width): -w mu where that is diagonal
  const float* self_rows;    // (n_labels, width): -w mu, row b holds column b; null: diagonal
};

// Columns of rows of `width` floats: all of them, or `count` of them, a multiple of 8.
struct Columns {
  int width, first, count;
};

// Rows are listed in chains: every entry but the last of a chain is marked as linked to the next.
constexpr std::uint32_t linked = std::uint32_t{1} << 31;
// Lists can be read so far beyond their end, for rows to be fetched in time. They hold row numbers
// there too.
constexpr int lookahead = 128;

struct LabelStrip {  // strided (labels, points), as LabelView
  float* data;
  std::int64_t label_stride, point_stride;
};

enum class UnaryKind : int { energies = 0, probabilities = 1, logits = 2 };  // as mean_field.h

struct UnaryStats {
  std::int64_t bad;  // label * n + point of the first value that is not allowed, or -1
  std::int64_t low_at, off_at;
  float low, off;
  double offset;  // energies: the sum over points of the lowest, which log_unary leaves out
};

// One mean-field pass over the points of one strip: message, softmax, splat, all in cache.
struct FieldPass {
  std::int64_t n_points;
  int n_labels, width;
  const float* log_unary;  // (n, width): -U, up to a constant per point
  const Message* messages;
  int n_messages;
  float* scratch;  // (batch, width)
  int batch;       // points worked on at a time, a multiple of 8
  float damping;
  float* z;              // (n, width) or null: natural parameters, kept when damping
  float* q;              // (n, width) or null: Q, read as the previous one and overwritten
  const float* fixed_q;  // (n, width) or null: splat these rows instead of computing new ones
  LabelStrip out;        // .data null: not wanted
  std::int32_t* labels;  // (n) or null
  bool want_change;      // compute max |dQ| against q
  bool want_energy;      // free energy of q; no softmax, no splat
  bool entropy;          // whether want_energy counts sum q log q
  float max_change;      // out
  double energy;         // out
};

struct Table {
  const char* name;
  void (*find_simplices)(const SimplexFrame& frame, const float* features, int count,
                         Simplices* out);

  void (*load_unary)(LabelStrip in, UnaryKind kind, float clip, std::int64_t n, int n_labels,
                     int width, float* log_unary, UnaryStats* stats);
  void (*field_pass)(FieldPass* pass);

  // rows[corner] += weight * scale * value, and value = scale * sum weight * rows[corner].
  // `width` > 1: values are (n, width) rows; width 1: plain numbers.
  void (*splat)(Corners at, const float* scale, const float* values, std::int64_t n, int width,
                float* rows);
  void (*slice)(Corners at, const float* scale, const float* rows, std::int64_t n, int width,
                float* values);

  // The first row of every chain becomes the sum of all its rows; every row becomes its chain's
  // first.
  void (*add_up)(float* rows, Columns columns, const std::uint32_t* entries, std::int64_t n);
  void (*spread)(float* rows, Columns columns, const std::uint32_t* entries, std::int64_t n);
  // `passes` times: row += ratio * (the one before + the one after in its chain)
  void (*blur)(float* rows, Columns columns, const std::uint32_t* entries, std::int64_t n,
               float ratio, int passes);
  // out = gain * factor * in, of n rows; factor (width), null stands for ones
  void (*scale)(const float* in, Columns columns, const float* factor, float gain, std::int64_t n,
                float* out);
  // out = matrix in, of n rows; matrix (n_labels, width): row b holds what label b adds to every
  // label
  void (*mix)(const float* in, const float* matrix, int n_labels, std::int64_t n, int width,
              float* out);
};

}  // namespace kernels

}  // namespace crfseg
