// An array cut into chunks of about a megabyte, each of which is one run of elements in C order:
// what is written and read front to back goes through memory chunk by chunk. Pure.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <vector>

namespace farcall::staging {

class Runs {
 public:
  struct Run {
    std::uint64_t first = 0, elements = 0;
    std::vector<hsize_t> start, extent;
  };

  // REQUIRES: at least one dimension, and no extent of 0.
  Runs(std::vector<std::uint64_t> shape, std::uint64_t element_bytes);

  const std::vector<hsize_t>& chunk() const { return chunk_; }
  std::uint64_t count() const { return count_; }
  Run run(std::uint64_t index) const;
  std::uint64_t of_element(std::uint64_t element) const;  // the run that it is in

 private:
  std::vector<std::uint64_t> shape_;
  std::vector<hsize_t> chunk_;
  std::size_t split_;         // the dimension that is cut; those before it are taken one by one
  std::uint64_t inner_ = 1;   // elements for each step along it
  std::uint64_t pieces_ = 1;  // that it is cut into
  std::uint64_t count_ = 1;
};

}  // namespace farcall::staging
