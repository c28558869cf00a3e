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

constexpr int simplex_batch = 64;  // points whose simplices are found at a time
constexpr int max_corners = 17;
constexpr float log_zero = -1e30F;  // the logarithm of a forbidden label, and of padding
constexpr int most_batched = 32;    // points that are worked on at a time

// Nothing is less probable than this, 2^-80: products of weights and probabilities then never
// become denormal numbers, which are slow. Results at the bound are taken for 0 where they are
// read.
constexpr float smallest = 8.2718061e-25F;

// How points are elevated and vertices packed (cpu/key_layout.h): what find_simplices must know of
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
  const float* drift;        // (rows) bound on how far messages have moved since they were settled
  float* moved;              // (rows) to which the movement of Q is added; null where nobody asks
  std::uint32_t* slot_row;   // (slots, corners) corners of slots, for the passes that skip points
  float* slot_weight;        // (slots, corners) with the normalisation of what is read
  float* slot_scale;         // (slots) what is added has another one: by how much; or null
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

// Between which two coarse scores a pixel lies, and how near to the second.
struct Tap {
  std::int64_t low, high;
  float share;
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

// One mean-field pass over the points of one strip: message, softmax, splat, all in cache.
struct FieldPass {
  std::int64_t n_points;
  int n_labels, width;
  float* log_unary;          // (n, width): -U, up to a constant per point; null: read it every time
  const UnarySource* unary;  // what to read, where something is
  UnaryStats* stats;  // or null: start from softmax(-U), read, noting what is found and the rows
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

// Points of one strip whose Q may still move, with all that their evaluation needs side by side
// (their corners are in the messages).
struct Slots {
  float* rows;           // (slots, 2, width): -U, and Q as last splat
  std::uint32_t* point;  // (slots) within the strip
  float* limit;          // (slots) the drift up to which q stays as it is
  int count;
};

// A strip in inference that skips points.
struct SkippingPass {
  UnarySource unary;
  int n_labels, width;
  Message* messages;
  int n_messages;
  float* scratch;  // (3 batch, width)
  int batch;
  float tolerance;
  Slots slots;
  float* limit;          // (points) of points without a slot; infinity where there is one
  LabelStrip out;        // .data null: not wanted
  std::int32_t* labels;  // (points) or null
};

// What is due in a later pass, in ascending order.
struct Due {
  std::uint32_t* index;
  float* drift;
  int count;
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
  void (*two_labels_start)(TwoLabelsPass* pass);
  void (*two_labels_step)(TwoLabelsPass* pass);
  // The first pass splats softmax(-U) without keeping it.
  void (*start_pass)(SkippingPass* pass, UnaryStats* stats, double* uncertainty);
  // What softmax(-U) leaves to other labels than the first at one point; scratch is (8, width).
  double (*uncertainty)(const UnarySource& unary, std::int64_t point, int n_labels, int width,
                        float* scratch, UnaryStats* stats);
  // The second one evaluates every point; those with a limit below dormant_from get a slot.
  void (*settle_pass)(SkippingPass* pass, float dormant_from);
  // Later ones evaluate slots and splat how their Q changed.
  void (*active_pass)(SkippingPass* pass, Due due);
  // Which slots have drifted beyond their limits, and which of n points without one. Only points
  // are looked at whose alarm is before `clock`; it is set anew.
  void (*find_due)(const SkippingPass* pass, Due* due);
  void (*find_woken)(const SkippingPass* pass, std::int64_t first, int n, float clock, float* alarm,
                     Due* due);
  // Gives points slots.
  void (*wake)(SkippingPass* pass, const Due& points);

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
  // out = factor * in, of n rows; factor (width)
  void (*scale)(const float* in, Columns columns, const float* factor, std::int64_t n, float* out);
  // out = matrix in, of n rows; matrix (n_labels, width): row b holds what label b adds to every
  // label
  void (*mix)(const float* in, const float* matrix, int n_labels, std::int64_t n, int width,
              float* out);

  // A mean-field step that is kept, and a step back through it.
  void (*unrolled_pass)(UnrolledPass* pass);
  void (*adjoint_pass)(AdjointPass* pass);
  // Rows, times a factor, in the caller's layout; rows up to the next multiple of eight must be
  // readable.
  void (*write_gradient)(const float* rows, std::int64_t n_points, int n_labels, int width,
                         float factor, const LabelStrip& out);
};

}  // namespace kernels

}  // namespace crfseg
