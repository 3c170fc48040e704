#include "runs.h"

#include <algorithm>

namespace farcall::staging {

namespace {
constexpr std::uint64_t kRunBytes = 1 << 20;

std::uint64_t divide_up(std::uint64_t a, std::uint64_t b) { return (a + b - 1) / b; }
}  // namespace

Runs::Runs(std::vector<std::uint64_t> shape, std::uint64_t element_bytes)
    : shape_(std::move(shape)), chunk_(shape_.begin(), shape_.end()), split_(shape_.size() - 1) {
  while (split_ > 0 && inner_ * shape_[split_] * element_bytes <= kRunBytes)
    inner_ *= shape_[split_--];
  // As even as can be: what the last chunk is short of is written all the same.
  const std::uint64_t most = std::max<std::uint64_t>(1, kRunBytes / (inner_ * element_bytes));
  const std::uint64_t rows = divide_up(shape_[split_], divide_up(shape_[split_], most));
  pieces_ = divide_up(shape_[split_], rows);
  chunk_[split_] = rows;
  count_ = pieces_;
  for (std::size_t i = 0; i < split_; ++i) {
    chunk_[i] = 1;
    count_ *= shape_[i];
  }
}

Runs::Run Runs::run(std::uint64_t index) const {
  Run run;
  run.start.assign(shape_.size(), 0);
  run.extent = chunk_;
  run.start[split_] = index % pieces_ * chunk_[split_];
  run.extent[split_] = std::min<hsize_t>(chunk_[split_], shape_[split_] - run.start[split_]);
  const std::uint64_t outer = index / pieces_;
  std::uint64_t left = outer;
  for (std::size_t i = split_; i-- > 0; left /= shape_[i]) run.start[i] = left % shape_[i];
  run.first = (outer * shape_[split_] + run.start[split_]) * inner_;
  run.elements = run.extent[split_] * inner_;
  return run;
}

std::uint64_t Runs::of_element(std::uint64_t element) const {
  const std::uint64_t step = element / inner_;
  return step / shape_[split_] * pieces_ + step % shape_[split_] / chunk_[split_];
}

}  // namespace farcall::staging
