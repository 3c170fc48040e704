// A directory of blobs: <name> is whole and what its hash says, <name>.part is the beginning of one
// that is being fetched. `name` is a hash, or a folder of one level, '/', and a hash.
// Blocking; used by one thread at a time.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hasher.h"
#include "wire/blobs.h"

namespace farcall::blobs {

// Reads all of it. kNotFound, kIo, or kCorrupt: it is not the blob that it should be.
Result<void> verify_file(const std::filesystem::path& file, const wire::BlobRef& blob);

class Store {
 public:
  explicit Store(std::filesystem::path root) : root_(std::move(root)) {}
  ~Store();
  Store(const Store&) = delete;

  // Makes the directory (0700) and lists what is whole, the least recently changed first.
  struct Entry {
    std::string name;
    std::uint64_t size = 0;
  };
  Result<std::vector<Entry>> open();

  // How many bytes of it are there from earlier; they have been read.
  Result<std::uint64_t> begin(const std::string& name, const wire::BlobRef& blob);
  // REQUIRES: begin() before; `offset` is the end of what is there.
  Result<void> append(const std::string& name, std::uint64_t offset, std::string_view bytes);
  // Synced and under its own name when it returns. kCorrupt: it was something else, and is removed.
  Result<void> finish(const std::string& name, const wire::BlobRef& blob);
  // kNotFound when it is not there, kCorrupt when it is shorter.
  Result<Bytes> read(const std::string& name, std::uint64_t offset, std::size_t size) const;
  bool is_there(const std::string& name, std::uint64_t size) const;
  void remove(const std::string& name);
  std::filesystem::path file(const std::string& name) const { return root_ / name; }

 private:
  struct Part {
    int fd = -1;
    std::uint64_t size = 0;
    ContentHasher hash;
  };
  std::filesystem::path part_file(const std::string& name) const {
    return root_ / (name + ".part");
  }
  void close_part(const std::string& name);

  const std::filesystem::path root_;
  std::map<std::string, Part> parts_;
};

}  // namespace farcall::blobs
