// SPDX-License-Identifier: MIT
#include "cpu/dispatch.h"

#include <atomic>
#include <cstdlib>

#include "error.h"

namespace crfseg {
namespace kernels {

// One table per instruction set that this build has (CMakeLists.txt compiles the kernels for each).
#define CRFSEG_TABLE(isa)                                                               \
  namespace isa {                                                                       \
  void find_simplices(const SimplexFrame&, SimplexBatch*);                              \
  void load_unary(const UnarySource&, int, int, float*, UnaryStats*);                   \
  void load_coarse(LabelStrip, UnaryKind, std::int64_t, int, int, float*, UnaryStats*); \
  void field_pass(FieldPass*);                                                          \
  void line_search_begin(LineSearchPass*);                                              \
  void line_search_measure(LineSearchPass*);                                            \
  void line_search_move(LineSearchPass*);                                               \
  void slab_start(SlabPass*);                                                           \
  void slab_step(SlabPass*);                                                            \
  void slab_write(const SlabPass*);                                                     \
  void two_labels_start(TwoLabelsPass*);                                                \
  void two_labels_step(TwoLabelsPass*);                                                 \
  void splat(Corners, const float*, const float*, std::int64_t, int, float*);           \
  void slice(Corners, const float*, const float*, std::int64_t, int, float*);           \
  void add_up(float*, Columns, const std::uint32_t*, std::int64_t);                     \
  void spread(float*, Columns, const std::uint32_t*, std::int64_t);                     \
  void blur(float*, Columns, const std::uint32_t*, std::int64_t, float, int);           \
  float scale(const float*, Columns, const float*, const float*, std::int64_t, float*); \
  void mix(const float*, const float*, int, std::int64_t, int, float*);                 \
  void unrolled_pass(UnrolledPass*);                                                    \
  void adjoint_pass(AdjointPass*);                                                      \
  void write_gradient(const float*, std::int64_t, int, int, float, const LabelStrip&);  \
  constexpr Table table = {#isa,                                                        \
                           find_simplices,                                              \
                           load_unary,                                                  \
                           load_coarse,                                                 \
                           field_pass,                                                  \
                           line_search_begin,                                           \
                           line_search_measure,                                         \
                           line_search_move,                                            \
                           slab_start,                                                  \
                           slab_step,                                                   \
                           slab_write,                                                  \
                           two_labels_start,                                            \
                           two_labels_step,                                             \
                           splat,                                                       \
                           slice,                                                       \
                           add_up,                                                      \
                           spread,                                                      \
                           blur,                                                        \
                           scale,                                                       \
                           mix,                                                         \
                           unrolled_pass,                                               \
                           adjoint_pass,                                                \
                           write_gradient};                                             \
  }

CRFSEG_TABLE(baseline)
#if defined(__x86_64__)
CRFSEG_TABLE(avx2)
CRFSEG_TABLE(avx512)
#endif
#undef CRFSEG_TABLE

}  // namespace kernels

namespace {

std::vector<const kernels::Table*> available_tables() {
  std::vector<const kernels::Table*> tables{&kernels::baseline::table};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    tables.push_back(&kernels::avx2::table);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
      tables.push_back(&kernels::avx512::table);
    }
  }
#endif
  return tables;
}

const kernels::Table& find_table(const std::string& name) {
  std::string known;
  for (const kernels::Table* table : available_tables()) {
    if (name == table->name) return *table;
    known += (known.empty() ? "" : ", ") + std::string(table->name);
  }
  throw Error("instruction set '" + name + "' is not available here; expected one of: " + known);
}

const kernels::Table* initial_table() {
  const char* wanted = std::getenv("CRFSEG_ISA");
  if (wanted != nullptr && *wanted != '\0') return &find_table(wanted);
  return available_tables().back();
}

std::atomic<const kernels::Table*>& active_table() {
  static std::atomic<const kernels::Table*> table{initial_table()};
  return table;
}

}  // namespace

const kernels::Table& active_kernels() { return *active_table().load(std::memory_order_relaxed); }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const kernels::Table* table : available_tables()) names.emplace_back(table->name);
  return names;
}

void set_isa(const std::string& name) { active_table() = &find_table(name); }

}  // namespace crfseg
