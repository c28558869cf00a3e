// SPDX-License-Identifier: MIT
// The inner loops: all .cpp files of this folder, compiled once per instruction set and chosen at
// run time (dispatch.cpp). Plain structs and pointers only: code shared with other translation
// units could be kept by the linker in a version the machine does not have.
//
// A row is `width` floats, one per label, padded: width is 1, 4, or a multiple of 8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "math/taps.h"

namespace crfseg {
namespace kernels {

constexpr int simplex_batch = 64;  // points whose simplices are found at a time
constexpr int max_corners = 17;
constexpr float log_zero = -1e30F;  // the logarithm of a forbidden label, and of padding
constexpr float log2_e = 1.44269504F;
constexpr int most_batched = 32;  // points that are worked on at a time

// Nothing is less probable than this, 2^-80: products of weights and probabilities then never
// become denormal numbers, which are slow. Results at the bound are taken for 0 where they are
// read.
constexpr float smallest = 8.2718061e-25F;
// p = softmax(-U) is taken to be at least 2^-72 of its largest, or 0. Messages up to 2^48 lift that
// to no more than 2^-24 of the mass, and what they leave of it, 2^-120, is not denormal.
constexpr float log2_least_start = -72.0F, log2_impossible = -1000.0F;
constexpr float log2_largest = 48.0F;

// How points are elevated and vertices packed (math/key_layout.h): what find_simplices must know of
// it.
struct SimplexFrame {
  int dim;
  float scale[max_corners];
  int omitted;             // the coordinate whose quotient is not packed
  int shift[max_corners];  // of the others in what is wanted: names or vertices
  std::uint64_t lowest;    // the packed lowest quotients
  std::uint64_t order_base;
  bool wants_vertices;  // the packed vertices of all corners, which 31 bits hold, and no names
  bool names_origin;    // whether 64 bits hold the origin with the order
};

struct SimplexBatch {
  int count;  // of points; features behind it may be anything finite
  float feature[max_corners][simplex_batch];
  float* weight;          // out: (count, corners)
  std::uint32_t* vertex;  // out where wanted: (count, corners), packed
  // Out otherwise. A name is the order of the coordinates, behind it the packed origin (the
  // remainder-0 vertex) if names_origin; else quotients tell the origin.
  std::uint64_t name[simplex_batch];
  std::int32_t rank[max_corners][simplex_batch];
  std::int32_t quotient[max_corners][simplex_batch];
};

// A run of points and where they sit in one lattice. Weights are (n, corners).
struct Corners {
  int corners;
  const std::uint16_t* row;  // (n, corners), or null:
  const std::uint32_t* wide_row;
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

enum class UnaryKind : int { energies, probabilities, logits, foreground };  // as mean_field.h

struct UnaryStats {
  std::int64_t bad;  // label * n + point of the first value that is not allowed, or -1
  std::int64_t low_at, off_at;
  float low, off;
  double offset;  // energies: the sum over points of the lowest, which log_unary leaves out
};

// Scores of a coarse grid, from which those of pixels are mixed.
struct CoarseSource {
  const float* rows;  // (grid rows, columns, width): probabilities, or -U up to a constant per cell
  const float* least;  // (width) the least probability, 0 for padding
  const Tap* down;     // (image height)
  const Tap* across;   // (image width)
  std::int64_t columns, image_width, first_pixel;
};

struct LabelTable {
  const float* others;   // (width) of a point that is given a label, which differs in
  float given;           // that label's entry
  const float* unknown;  // (width) of a point that is not
};

// Hard labels; what is not 0..n_labels - 1 says nothing.
struct LabelSource {
  const std::int32_t* label;
  LabelTable logs, start;  // -U and softmax(-U)
};

// Where the unaries of the points of one strip come from: from what is not null.
struct UnarySource {
  const float* rows;    // (n, width) of -U up to a constant per point
  LabelStrip values;    // of this kind
  CoarseSource coarse;  // of this kind
  LabelSource labels;
  UnaryKind kind;
  float clip;
  std::int64_t n_points;  // of the strip
};

// What a solver makes of t = -U - P x (solver.h): s = softmax(sharpness t), or sparsemax; and then
// x + step (s - x), or for a step of 1 s itself.
struct Update {
  bool euclidean;
  float sharpness, step;
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
  Update update;
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

// A pass of a line search (cpu/line_search.h) over the points of one strip. Rows are (n, width).
struct LineSearchPass {
  std::int64_t n_points;
  int n_labels, width;
  const Message* messages;
  int n_messages;
  float* scratch;  // (batch, width)
  int batch;       // points worked on at a time, a multiple of 8
  const float* log_unary;
  Update update;   // and how far x goes on the line
  float* x;        // where the line begins
  float* t;        // -U - P x
  float* s;        // where it ends
  float* t_at_s;   // -U - P s
  bool want_next;  // whether to find the next s
  bool want_energy;
  double slope, curvature;  // out: E(x + a (s - x)) = E(x) + a slope + a^2 / 2 curvature
  double energy;            // out: free energy of x
  float max_change;         // out
};

// Labels that are worked on together: 16, whose rows are lines of the cache, or up to 24.
struct Slab {
  const std::int32_t* label;   // (n_labels) which they are
  int first, n_labels, width;  // there are `first` labels in the slabs before
  // (n, width) of a strip's points: p = softmax(-U) up to a factor per point; null: it is read, or
  // made, whenever it is needed
  float* p;
  // Of coarse scores: (grid cells, width), logits times log2(e), and (width) the least p
  const float *cells, *least;
};

constexpr int slab_width = 16, widest_slab = 24;

// A pass over the points of one strip with labels in slabs (cpu/slab_field.h).
struct SlabPass {
  UnarySource unary;
  UnaryStats* stats;
  const Slab* slabs;
  int n_slabs, n_labels;
  const std::int32_t* place;  // (n_labels) of hard labels: where in the slabs they are
  const Message* messages;
  int n_messages;
  const float** incoming;  // (n_messages, n_slabs) rows of messages times log2(e)
  float** outgoing;        // (n_messages, n_slabs) rows to which Q is added; null in the last pass
  const float* growth;     // (n_slabs) a bound on e^message
  float* mass;             // (batches, n_slabs) a bound on the sum of p, for every point
  float* top;              // (n) the largest of logits, the lowest of energies; or null
  float* scratch;          // (n_slabs + 1, batch, widest_slab), behind it (n_slabs, batch)
  unsigned char* is_live;  // (n_slabs)
  int batch;               // points worked on at a time, a multiple of 8
  float tolerance;         // a slab is left out where it holds less of every point's mass
  bool keep;               // in the last pass: Q takes the place of p
  LabelStrip out;          // .data null: not wanted
  std::int32_t* labels;    // (n) or null
  std::int64_t evaluated;  // out: how many labels of points
  bool overflows;          // out: whether messages are too large to be taken so
};

// A pass in one channel over the points of one strip, for two labels (cpu/two_labels.h).
struct TwoLabelsPass {
  UnarySource unary;  // read by the first pass
  UnaryStats* stats;
  float* log_odds;  // (n) U(1) - U(0), written by the first pass
  const Message* messages;
  int n_messages;
  LabelStrip out;        // .data null: not wanted
  std::int32_t* labels;  // (n) or null
};

struct UnrolledPass;  // gradients.h
struct AdjointPass;

struct Table {
  const char* name;
  void (*find_simplices)(const SimplexFrame& frame, SimplexBatch* batch);

  void (*load_unary)(const UnarySource& from, int n_labels, int width, float* log_unary,
                     UnaryStats* stats);
  // What is mixed from n coarse scores: probabilities as they are, otherwise -U.
  void (*load_coarse)(LabelStrip in, UnaryKind kind, std::int64_t n, int n_labels, int width,
                      float* rows, UnaryStats* stats);
  void (*field_pass)(FieldPass* pass);
  // t = -U - P x, what the lattices hold being x. t_at_s from s likewise, and what E is on the
  // line.
  void (*line_search_begin)(LineSearchPass* pass);
  void (*line_search_measure)(LineSearchPass* pass);
  // Moves x and t along the line, and splats what the next s is.
  void (*line_search_move)(LineSearchPass* pass);
  void (*slab_start)(SlabPass* pass);
  void (*slab_step)(SlabPass* pass);
  void (*slab_write)(const SlabPass* pass);
  void (*two_labels_start)(TwoLabelsPass* pass);
  void (*two_labels_step)(TwoLabelsPass* pass);

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
  // out = factor * in, of n rows; factor (width). Returns the largest entry, at least 0, each row
  // counted by its weight; null stands for ones.
  float (*scale)(const float* in, Columns columns, const float* factor, const float* weight,
                 std::int64_t n, float* out);
  // out = matrix in, of n rows; matrix (n_labels, width): row b holds what label b adds to every
  // label
  void (*mix)(const float* in, const float* matrix, int n_labels, std::int64_t n, int width,
              float* out);

  // A mean-field step that is kept, and a step back through it.
  void (*unrolled_pass)(UnrolledPass* pass);
  void (*adjoint_pass)(AdjointPass* pass);
  // sums(x) += sum over n rows of a(x) b(x), or for all pairs sums(x, y) += sum of a(x) b(y); sums
  // are (width) or (n_labels, width).
  void (*add_products)(const float* a, const float* b, std::int64_t n, int n_labels, int width,
                       bool all_pairs, double* sums);
  // Rows, times a factor, in the caller's layout; rows up to the next multiple of eight must be
  // readable.
  void (*write_gradient)(const float* rows, std::int64_t n_points, int n_labels, int width,
                         float factor, const LabelStrip& out);
};

}  // namespace kernels

}  // namespace crfseg
