// SPDX-License-Identifier: MIT
// Whichever allocation fails, its failure is what is thrown, nothing leaks, and what was built
// before serves as if nothing had been.
#include "cuda/filter.h"
#include "cuda/mean_field.h"
#include "emulation.h"
#include "heap.h"
#include "twins.h"

namespace {

namespace cuda = twins::cuda;
using crfseg::Compatibility;
using crfseg::Normalization;
using crfseg::UnaryKind;
using twins::Scene;

// Whether `work` failed, its n-th allocation having done so.
template <class Work>
bool fails_at(std::int64_t n, const Work& work) {
  const std::int64_t asked = emulation::heap_counts().asked;
  emulation::fail_allocation(n);
  bool failed = false;
  try {
    work();
  } catch (const cuda::OutOfDeviceMemory& e) {
    failed = true;
    CHECK(e.bytes > 0);
  }
  emulation::fail_allocation(-1);
  const std::int64_t more = emulation::heap_counts().asked - asked;
  CHECK(failed ? more == n + 1 : more <= n);
  return failed;
}

// `work` fails at each of its allocations and keeps nothing, and at last does what it does.
template <class Work>
void fail_everywhere(const Work& work) {
  const emulation::HeapCounts before = emulation::heap_counts();
  std::int64_t n = 0;
  for (; fails_at(n, work); ++n) {
    CHECK(emulation::heap_counts().pieces == before.pieces);
    CHECK(emulation::heap_counts().bytes == before.bytes);
  }
  CHECK(n > 0);
}

Scene small_scene() { return twins::scene(1, 3, 5, 1, 8.0F, 12.0F, 1); }

std::shared_ptr<const cuda::Lattice> lattice_of(const Scene& scene, std::vector<int> fill) {
  cuda::BuildOptions options = twins::options_of(scene.dim(), std::move(fill), 1);
  options.side = 4;
  return std::make_shared<cuda::Lattice>(twins::points_of(scene), options, twins::allocate(),
                                         nullptr);
}

void check_lattice() {
  const Scene scene = small_scene();
  const auto expected = lattice_of(scene, {4})->keys(nullptr);
  std::vector<std::uint64_t> found;
  fail_everywhere([&] { found = lattice_of(scene, {4})->keys(nullptr); });
  CHECK(found == expected);
}

void check_filter() {
  const Scene scene = small_scene();
  const auto lattice = lattice_of(scene, {});
  check::Random random(2);
  const std::vector<float> values = random.uniforms(scene.n_points() * 3, -1.0F, 1.0F);
  const auto filter = [&](std::vector<float>* out) {
    cuda::lattice_filter(*lattice, Normalization::symmetric, 1.0, false, values.data(), 3,
                         out->data(), twins::allocate(), nullptr);
  };
  std::vector<float> expected(values.size()), found(values.size());
  filter(&expected);
  fail_everywhere([&] { filter(&found); });
  CHECK(found == expected);
}

// A field with all that it can have, and what it has found.
class Field {
 public:
  Field(const Scene& scene, cuda::FloatType storage)
      : scene_(scene), storage_(storage), lattice_(lattice_of(scene, {})) {
    check::Random random(3);
    unary_ = random.uniforms(n_labels * scene.n_points(), -2.0F, 2.0F);
    q_ = unary_;
    labels_.resize(static_cast<std::size_t>(scene.n_points()));
  }

  void build() {
    field_ = std::make_unique<cuda::MeanField>(lattice_->view().tiling, n_labels, twins::allocate(),
                                               nullptr, storage_);
    field_->set_unary(view(unary_), UnaryKind::energies, 0.0F);
    add({});
    add({Compatibility::Kind::matrix, {0.0F, 1.0F, 0.5F, 1.0F, 0.0F, 2.0F, 0.5F, 2.0F, 0.0F}});
  }

  void drop() { field_.reset(); }

  void add(const Compatibility& compatibility) {
    field_->add_kernel(lattice_, Normalization::symmetric, 1.0, 2.0F, compatibility, true);
  }

  void infer() {
    cuda::FieldOptions options;
    options.iterations = 1;
    options.damping = 0.25F;
    options.trace = true;
    field_->infer({}, options, {q_.data(), 0, scene_.n_points(), 1}, labels_.data());
    trace_ = field_->outcome().trace;
  }

  cuda::Outcome outcome() { return field_->outcome(); }

  double energy() { return field_->energy(labels_.data()) + field_->free_energy(view(q_)); }

  bool operator==(const Field& other) const {
    return q_ == other.q_ && labels_ == other.labels_ && trace_ == other.trace_;
  }

 private:
  static constexpr int n_labels = 3;

  cuda::BatchView<const float> view(const std::vector<float>& values) const {
    return {values.data(), 0, scene_.n_points(), 1};
  }

  Scene scene_;
  cuda::FloatType storage_;
  std::shared_ptr<const cuda::Lattice> lattice_;
  std::vector<float> unary_, q_;
  std::vector<std::int32_t> labels_;
  std::vector<double> trace_;
  std::unique_ptr<cuda::MeanField> field_;
};

void check_building_a_field(cuda::FloatType storage) {
  fail_everywhere([&] {
    Field field(small_scene(), storage);
    field.build();
  });
}

// Calls that fail leave a field as good as new.
void check_mean_field(cuda::FloatType storage) {
  Field expected(small_scene(), storage);
  expected.build();
  expected.infer();
  const double energy = expected.energy();
  bool fails = true;
  for (std::int64_t n = 0; fails; ++n) {
    Field field(small_scene(), storage);
    field.build();
    const bool inference_fails = fails_at(n, [&] { field.infer(); });
    if (inference_fails) field.outcome();
    field.infer();
    CHECK(field == expected);
    fails = fails_at(n, [&] { field.energy(); });
    CHECK(field.energy() == energy);
    field.infer();
    CHECK(field == expected);
    fails = fails || inference_fails;
  }
}

}  // namespace

int main() {
  if (emulation::is_sanitized()) emulation::settings().threads_at_most = 1;
  const emulation::HeapCounts before = emulation::heap_counts();
  check_lattice();
  check_filter();
  for (const cuda::FloatType storage : {cuda::FloatType::float32, cuda::FloatType::float16}) {
    check_building_a_field(storage);
    check_mean_field(storage);
  }
  CHECK(emulation::heap_counts().pieces == before.pieces);
  return check::result();
}
