// One large result in an HDF5 file of its own, in the form in which h5py, h5dump and ParaView read
// it: a group named by the task; in it "value", the arrays and texts of the result by their names,
// and "payload", what it takes to give back the bytes of docs/payloads.md as they came.
// docs/data.md has the layout.
//
// Threads: as campaign.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"

namespace farcall::staging {

// The next `size` bytes of a payload, from front to back.
using PayloadSource = std::function<Result<void>(char* into, std::size_t size)>;

struct ResultFileOptions {
  std::string task_id;
  std::string host;
  std::uint64_t size = 0;  // of the payload
  int gzip = 0;            // level; 0: not compressed
};

// Makes `file`, which must not be there; it is complete and closed, not synced, when this returns.
// Memory holds a few megabytes of it. The content_hash of the payload. kIo, kCorrupt, and what the
// source says; then something may lie at `file`.
Result<std::string> write_result_file(const std::filesystem::path& file,
                                      const ResultFileOptions& options,
                                      const PayloadSource& source);

// The same for an array whose parts several processes write, with parallel HDF5. The source gives
// what comes before the array's own bytes; `options.size` counts these too. Makes and closes all of
// the file but what is in the array, which lies at `<task>/value`; when it is written,
// seal_result_file() reads it, and says and writes down the hash. kInvalidArgument: the payload is
// not that of one array.
Result<void> begin_result_file(const std::filesystem::path& file, const ResultFileOptions& options,
                               const PayloadSource& source);
Result<std::string> seal_result_file(const std::filesystem::path& file);

class ResultFile {
 public:
  // kNotFound, kIo, kCorrupt.
  static Result<ResultFile> open(const std::filesystem::path& file);
  ResultFile(ResultFile&&) noexcept;
  ResultFile& operator=(ResultFile&&) noexcept;
  ~ResultFile();

  std::uint64_t size() const;  // of the payload
  // Bytes of the payload; what they lie among is checked with Fletcher32. Quick in ascending order.
  // REQUIRES: they lie within it. kCorrupt, kIo.
  Result<void> read(std::uint64_t offset, char* into, std::size_t size);

 private:
  struct Impl;
  explicit ResultFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::staging
