// HDF5 with handles that close themselves and errors as values. Only the sources of this folder see
// it.
#pragma once

#include <hdf5.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "staging/value.h"

namespace farcall::staging {

class Handle {
 public:
  Handle() = default;
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() { reset(); }
  herr_t reset() { return id_ < 0 ? 0 : close_(std::exchange(id_, -1)); }
  explicit operator bool() const { return id_ >= 0; }
  hid_t get() const { return id_; }

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

// HDF5 prints its errors on stderr unless it is told not to. Before any other call.
void silence_hdf5();
// kIo with what HDF5 says of the last call that failed: "out.h5: tasks cannot be written: …".
tl::unexpected<Error> hdf5_failure(const std::string& file, std::string_view what);
// The same of something that is read: kCorrupt unless the operating system refused it.
tl::unexpected<Error> hdf5_damage(const std::string& file, std::string_view what);

// Types in the file, which are those in memory: arrays are written as they lie in the payload.
Handle type_of(const DType& type);
Handle text_type();                        // UTF-8 of any length
Handle fixed_text_type(std::size_t size);  // ASCII, padded with zeros
Handle bool_type();                        // as h5py writes it

// Missing groups on the way are made; names are UTF-8.
Handle make_link_properties();
bool has_link(hid_t location, const std::string& path);  // whole path
// Missing groups on the way are made.
Handle open_or_make_group(hid_t location, const std::string& path);
Result<void> write_attribute(const std::string& file, hid_t object, const char* name,
                             std::string_view text);
Result<void> write_attribute(const std::string& file, hid_t object, const char* name,
                             std::int64_t number);
// A text attribute, empty when there is none. Only of files that are trusted: text of any length
// lies in HDF5's global heap, which has no checksums, and of a damaged one HDF5 1.10 reads past the
// end.
std::string read_attribute(hid_t object, const char* name);
// Text that lies in the object's header, under its checksum.
Result<void> write_short_attribute(const std::string& file, hid_t object, const char* name,
                                   std::string_view text);
// Empty when there is none that was written so.
std::string read_short_attribute(hid_t object, const char* name);

// A dataset that grows along its first dimension, of rows of `shape`; Fletcher32 unless it is text.
struct Growing {
  Handle type;
  std::vector<std::uint64_t> shape;
  std::uint64_t element_bytes = 8;
  bool checksum = true;
  bool fill_with_nan = false;
};
Handle make_growing(hid_t location, const std::string& path, const Growing& what,
                    std::uint64_t rows);
// All of it at once, nothing that grows; `data` may be null when the shape is empty.
Result<void> write_whole(const std::string& file, hid_t location, const std::string& path,
                         const Handle& type, const std::vector<std::uint64_t>& shape,
                         const void* data, std::uint64_t element_bytes);

}  // namespace farcall::staging
