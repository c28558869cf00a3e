// SPDX-License-Identifier: MIT
// One call of the library, stage by stage: `stages [labels=21] [iterations=10] [width=160]
// [height=120] [threads=1] [repeats=1] [image=FILE probabilities=FILE]`. Prints the compiler and
// the kernels that ran, then the median seconds of every stage, each of which is a function stage_*
// of its own, so that callgrind can count it (bench_instructions.py).
//
// Without files of floats, (H, W, 3) and (C, H, W), the image is made up: flat regions with noise,
// and class scores of one cell per 8 x 8 pixels that follow them roughly. Nothing in it depends on
// the machine or the standard library: mt19937_64's bits are the same everywhere.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "mean_field.h"

namespace {

constexpr std::int64_t stride = 8;
constexpr int n_regions = 12;

struct Scene {
  std::int64_t height, width;
  int n_labels;
  std::int64_t n_points() const { return height * width; }
  std::int64_t rows() const { return (height + stride - 1) / stride; }
  std::int64_t columns() const { return (width + stride - 1) / stride; }
};

class Random {
 public:
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(bits_() >> 40) / 16777216.0F;
  }

 private:
  std::mt19937_64 bits_{7};
};

struct Region {
  float x, y, colour[3];
  int label;
};

std::vector<Region> make_regions(Random* random, const Scene& scene) {
  std::vector<Region> regions(n_regions);
  for (int i = 0; i < n_regions; ++i) {
    Region& region = regions[i];
    region.x = random->uniform(0.0F, float(scene.width));
    region.y = random->uniform(0.0F, float(scene.height));
    for (float& level : region.colour) level = random->uniform(20.0F, 235.0F);
    region.label = i % scene.n_labels;
  }
  return regions;
}

float distance(const Region& region, float x, float y) {
  return std::hypot(region.x - x, region.y - y);
}

const Region& nearest(const std::vector<Region>& regions, float x, float y) {
  const Region* best = regions.data();
  for (const Region& region : regions) {
    if (distance(region, x, y) < distance(*best, x, y)) best = &region;
  }
  return *best;
}

std::vector<float> make_image(Random* random, const Scene& scene,
                              const std::vector<Region>& regions) {
  std::vector<float> image;
  for (std::int64_t i = 0; i < scene.n_points(); ++i) {
    const Region& region = nearest(regions, float(i % scene.width), float(i / scene.width));
    for (float level : region.colour) {
      image.push_back(std::round(level + random->uniform(-12.0F, 12.0F)));
    }
  }
  return image;
}

// Scores fall as a label's nearest region is further away than the nearest of all; a label without
// a region is unlikely everywhere. The mean over pixels of the largest probability is about 0.93.
std::vector<float> make_scores(Random* random, const Scene& scene,
                               const std::vector<Region>& regions) {
  const std::int64_t columns = scene.columns(), n_cells = scene.rows() * columns;
  std::vector<float> scores(scene.n_labels * n_cells);
  for (float& score : scores) score = random->uniform(-11.0F, -8.0F);
  for (std::int64_t cell = 0; cell < n_cells; ++cell) {
    const auto x = float(cell % columns * stride + stride / 2);
    const auto y = float(cell / columns * stride + stride / 2);
    const float closest = distance(nearest(regions, x, y), x, y);
    for (const Region& region : regions) {
      float& score = scores[region.label * n_cells + cell];
      const float further = distance(region, x, y) - closest;
      score = std::fmax(score, random->uniform(-1.0F, 1.0F) - 0.7F * further);
    }
  }
  return scores;
}

// (C, N) probabilities: scores stretched, then softmax, which is where a field starts from.
std::vector<float> make_probabilities(const Scene& scene, const std::vector<float>& scores) {
  const std::int64_t n_points = scene.n_points(), n_cells = scene.rows() * scene.columns();
  std::vector<float> p(scene.n_labels * n_points);
  crfseg::MeanField field(n_points, scene.n_labels);
  field.set_coarse_unary({scores.data(), scene.n_labels, n_cells, n_cells, 1},
                         {scene.rows(), scene.columns(), scene.height, scene.width, false},
                         crfseg::UnaryKind::logits, 0.0F, 1);
  crfseg::InferenceOptions options;
  options.iterations = 0;
  field.infer({}, options, {p.data(), scene.n_labels, n_points, n_points, 1}, nullptr);
  return p;
}

std::vector<float> read_floats(const std::string& name, std::int64_t count) {
  std::vector<float> values(count);
  std::ifstream file(name, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(values.data()), count * sizeof(float))) {
    throw std::runtime_error(name + " does not hold " + std::to_string(count) + " floats");
  }
  return values;
}

// Words NAME=VALUE of the command line.
class Words {
 public:
  Words(int count, char** words) {
    for (int i = 1; i < count; ++i) {
      const std::string word = words[i];
      const std::size_t at = word.find('=');
      if (at == std::string::npos) throw std::runtime_error(word + ": expected NAME=VALUE");
      values_[word.substr(0, at)] = word.substr(at + 1);
    }
  }
  std::string text(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? "" : found->second;
  }
  int number(const std::string& name, int usual) const {
    return text(name).empty() ? usual : std::atoi(text(name).c_str());
  }

 private:
  std::map<std::string, std::string> values_;
};

struct Job {
  explicit Job(const Words& words)
      : scene{words.number("height", 120), words.number("width", 160), words.number("labels", 21)},
        threads(words.number("threads", 1)) {
    options.iterations = words.number("iterations", 10);
    options.threads = threads;
    const std::int64_t n_values = scene.n_labels * scene.n_points();
    q.resize(n_values);
    if (!words.text("image").empty()) {
      image = read_floats(words.text("image"), 3 * scene.n_points());
      probabilities = read_floats(words.text("probabilities"), n_values);
      return;
    }
    Random random;
    const std::vector<Region> regions = make_regions(&random, scene);
    image = make_image(&random, scene, regions);
    probabilities = make_probabilities(scene, make_scores(&random, scene, regions));
  }

  crfseg::LabelView<const float> unary() const { return view(probabilities.data()); }
  crfseg::LabelView<float> out() { return view(q.data()); }
  template <class T>
  crfseg::LabelView<T> view(T* data) const {
    return {data, scene.n_labels, scene.n_points(), scene.n_points(), 1};
  }

  Scene scene;
  int threads;
  crfseg::InferenceOptions options;
  std::vector<float> image, probabilities, q;
  std::shared_ptr<const crfseg::Lattice> spatial, bilateral;
  std::unique_ptr<crfseg::MeanField> field;
};

std::shared_ptr<const crfseg::Lattice> make_lattice(const Job& job,
                                                    const std::vector<float>& inverse_sigmas) {
  const auto n_channels = static_cast<int>(inverse_sigmas.size()) - 2;
  const crfseg::PixelGrid pixels{job.scene.height,
                                 job.scene.width,
                                 n_channels > 0 ? job.image.data() : nullptr,
                                 crfseg::ChannelType::float32,
                                 n_channels,
                                 inverse_sigmas.data()};
  return std::make_shared<const crfseg::Lattice>(pixels, std::vector<int>{}, 1, job.threads);
}

}  // namespace

// Names that callgrind finds as they stand.
#define CRFSEG_STAGE extern "C" __attribute__((noinline)) void

CRFSEG_STAGE stage_build_spatial(Job* job) {
  job->spatial = make_lattice(*job, {1 / 3.0F, 1 / 3.0F});
}

CRFSEG_STAGE stage_build_bilateral(Job* job) {
  const float xy = 1 / 80.0F, rgb = 1 / 13.0F;
  job->bilateral = make_lattice(*job, {xy, xy, rgb, rgb, rgb});
}

CRFSEG_STAGE stage_unary(Job* job) {
  job->field = std::make_unique<crfseg::MeanField>(job->scene.n_points(), job->scene.n_labels);
  job->field->set_unary(job->unary(), crfseg::UnaryKind::probabilities, 1e-5F, job->threads);
}

CRFSEG_STAGE stage_normaliser(Job* job) {
  const auto symmetric = crfseg::Normalization::symmetric;
  job->field->add_kernel(job->spatial, symmetric, 3.0F, {}, false, job->threads);
  job->field->add_kernel(job->bilateral, symmetric, 10.0F, {}, false, job->threads);
}

CRFSEG_STAGE stage_full_inference(Job* job) {
  job->options.skip = false;
  job->field->infer({}, job->options, job->out(), nullptr);
}

CRFSEG_STAGE stage_inference(Job* job) {
  job->options.skip = true;
  job->field->infer({}, job->options, job->out(), nullptr);
}

namespace {

struct Stage {
  const char* name;
  void (*run)(Job*);
  std::vector<double> seconds;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void measure(const Words& words) {
  Job job(words);
  Stage stages[] = {{"build_spatial", stage_build_spatial, {}},
                    {"build_bilateral", stage_build_bilateral, {}},
                    {"unary", stage_unary, {}},
                    {"normaliser", stage_normaliser, {}},
                    {"full_inference", stage_full_inference, {}},
                    {"inference", stage_inference, {}}};
  for (int repeat = 0; repeat < words.number("repeats", 1); ++repeat) {
    for (Stage& stage : stages) {
      const auto start = std::chrono::steady_clock::now();
      stage.run(&job);
      const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
      stage.seconds.push_back(passed.count());
    }
  }
#if defined(__clang__)
  std::printf("Clang %d", __clang_major__);
#else
  std::printf("GCC %d", __GNUC__);
#endif
  std::printf(" %s\n", crfseg::active_kernels().name);
  for (const Stage& stage : stages) std::printf("%s %.6g\n", stage.name, median(stage.seconds));
}

}  // namespace

int main(int count, char** words) {
  try {
    measure(Words(count, words));
  } catch (const std::exception& fault) {
    std::fprintf(stderr, "%s\n", fault.what());
    return 1;
  }
  return 0;
}
