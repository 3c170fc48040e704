// A buffer of a payload as a dataset: its bytes in, the same bytes out, run by run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "handles.h"
#include "runs.h"

namespace farcall::staging {

// Text of numpy, four bytes a character, lies in the file as UTF-8 in as many bytes. Everything
// that four bytes can be comes back as it was, lone surrogates too; `bytes` is changed in place.
// kCorrupt: what numpy cannot have written.
Result<void> to_utf8(std::vector<char>& bytes, std::uint64_t element_bytes, bool big_endian);
void from_utf8(std::vector<char>& bytes, std::uint64_t element_bytes, bool big_endian);

class PlainDataset {
 public:
  // `gzip`: level, 0 none. Chunked with Fletcher32, unless it is a single element or none.
  static Result<PlainDataset> make(const std::string& file, hid_t location, const std::string& path,
                                   const DType& dtype, const std::vector<std::uint64_t>& shape,
                                   int gzip);
  // One that make() made.
  static Result<PlainDataset> open(const std::string& file, hid_t location,
                                   const std::string& path);

  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t runs() const { return bytes_ == 0 ? 0 : runs_ ? runs_->count() : 1; }
  std::uint64_t run_at(std::uint64_t byte) const;
  struct Extent {
    std::uint64_t offset = 0, size = 0;  // bytes
  };
  Extent extent(std::uint64_t run) const;
  Result<void> write(std::uint64_t run, std::vector<char>& bytes);  // changes them
  Result<void> read(std::uint64_t run, std::vector<char>& bytes) const;

 private:
  PlainDataset() = default;
  void measure(const DType& dtype, const std::vector<std::uint64_t>& shape);

  std::string name_;  // file and path, for errors
  Handle type_, dataset_;
  DType dtype_;
  std::uint64_t bytes_ = 0;
  std::optional<Runs> runs_;  // none: a single element
};

}  // namespace farcall::staging
