#include "handles.h"

#include <algorithm>
#include <cmath>
#include <mutex>

namespace farcall::staging {

namespace {

constexpr std::uint64_t kChunkBytes = 256 << 10;
constexpr std::uint64_t kChunkBytesMax = 4 << 20;  // of one that holds a single row
constexpr std::uint64_t kChunkRowsMax = 4096;

// "file write failed: time = …, filename = …, errno = 28, error message = 'No space …', …"
constexpr std::string_view kMark = "error message = '";

// The innermost reason, or what the operating system said.
herr_t keep_reason(unsigned, const H5E_error2_t* error, void* text) {
  auto& kept = *static_cast<std::string*>(text);
  const std::string_view said = error->desc == nullptr ? "" : error->desc;
  if (kept.empty() || said.find(kMark) != std::string_view::npos) kept = said;
  return 0;
}

// numpy's half precision, which HDF5 has no name for.
Handle half_type(bool big_endian) {
  Handle type(H5Tcopy(big_endian ? H5T_IEEE_F32BE : H5T_IEEE_F32LE), H5Tclose);
  H5Tset_fields(type.get(), 15, 10, 5, 0, 10);
  H5Tset_size(type.get(), 2);
  H5Tset_ebias(type.get(), 15);
  return type;
}

hid_t predefined(const DType& type) {
  const bool big = type.big_endian;
  if (type.kind == 'f' || type.kind == 'c') {
    const bool four = type.size == (type.kind == 'f' ? 4 : 8);
    if (four) return big ? H5T_IEEE_F32BE : H5T_IEEE_F32LE;
    return big ? H5T_IEEE_F64BE : H5T_IEEE_F64LE;
  }
  const bool has_sign = type.kind != 'u';
  switch (type.size) {
    case 1:
      return has_sign ? H5T_STD_I8LE : H5T_STD_U8LE;
    case 2:
      return has_sign ? (big ? H5T_STD_I16BE : H5T_STD_I16LE)
                      : (big ? H5T_STD_U16BE : H5T_STD_U16LE);
    case 4:
      return has_sign ? (big ? H5T_STD_I32BE : H5T_STD_I32LE)
                      : (big ? H5T_STD_U32BE : H5T_STD_U32LE);
    default:
      return has_sign ? (big ? H5T_STD_I64BE : H5T_STD_I64LE)
                      : (big ? H5T_STD_U64BE : H5T_STD_U64LE);
  }
}

std::vector<hsize_t> chunk_of(const Growing& what) {
  std::vector<hsize_t> chunk{1};
  std::uint64_t bytes = what.element_bytes;
  for (const std::uint64_t extent : what.shape) {
    chunk.push_back(std::max<hsize_t>(extent, 1));
    bytes *= chunk.back();
  }
  while (bytes > kChunkBytesMax) {
    auto largest = std::max_element(chunk.begin() + 1, chunk.end());
    if (largest == chunk.end() || *largest == 1) break;
    bytes /= *largest;
    *largest = (*largest + 1) / 2;
    bytes *= *largest;
  }
  chunk[0] =
      std::clamp<std::uint64_t>(kChunkBytes / std::max<std::uint64_t>(bytes, 1), 1, kChunkRowsMax);
  return chunk;
}

}  // namespace

void silence_hdf5() {
  static std::once_flag once;
  std::call_once(once, [] { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); });
}

namespace {

struct Reason {
  std::string text = "HDF5 gives no reason";
  bool refused = false;  // by the operating system
};

Reason take_reason() {
  std::string said;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_reason, &said);
  H5Eclear2(H5E_DEFAULT);
  Reason reason;
  if (!said.empty()) reason.text = said;
  const auto start = said.find(kMark);
  if (start == std::string::npos) return reason;
  const auto end = said.find('\'', start + kMark.size());
  reason.refused = true;
  reason.text = said.substr(start + kMark.size(), end - start - kMark.size());
  return reason;
}

}  // namespace

tl::unexpected<Error> hdf5_failure(const std::string& file, std::string_view what) {
  return fail(ErrorCode::kIo, "{}: {}: {}", file, what, take_reason().text);
}

tl::unexpected<Error> hdf5_damage(const std::string& file, std::string_view what) {
  const Reason reason = take_reason();
  return fail(reason.refused ? ErrorCode::kIo : ErrorCode::kCorrupt, "{}{}: {}: {}", file,
              reason.refused ? "" : " is damaged", what, reason.text);
}

Handle make_link_properties() {
  Handle properties(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(properties.get(), 1);
  H5Pset_char_encoding(properties.get(), H5T_CSET_UTF8);
  return properties;
}

Handle text_type() {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

Handle fixed_text_type(std::size_t size) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), size);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  return type;
}

Handle bool_type() {
  Handle type(H5Tenum_create(H5T_STD_I8LE), H5Tclose);
  const signed char no = 0, yes = 1;
  H5Tenum_insert(type.get(), "FALSE", &no);
  H5Tenum_insert(type.get(), "TRUE", &yes);
  return type;
}

Handle type_of(const DType& type) {
  if (type.kind == 'b') return bool_type();
  if (type.kind == 'S') return fixed_text_type(type.size);
  if (type.kind == 'f' && type.size == 2) return half_type(type.big_endian);
  const hid_t simple = predefined(type);
  if (type.kind != 'c') return Handle(H5Tcopy(simple), H5Tclose);
  Handle pair(H5Tcreate(H5T_COMPOUND, type.size), H5Tclose);
  H5Tinsert(pair.get(), "r", 0, simple);
  H5Tinsert(pair.get(), "i", type.size / 2, simple);
  return pair;
}

bool has_link(hid_t location, const std::string& path) {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (H5Lexists(location, part.c_str(), H5P_DEFAULT) <= 0) return false;
    if (end == std::string::npos) return true;
  }
}

Handle open_or_make_group(hid_t location, const std::string& path) {
  if (has_link(location, path))
    return Handle(H5Gopen2(location, path.c_str(), H5P_DEFAULT), H5Gclose);
  const Handle properties = make_link_properties();
  return Handle(H5Gcreate2(location, path.c_str(), properties.get(), H5P_DEFAULT, H5P_DEFAULT),
                H5Gclose);
}

namespace {

Result<void> write_any_attribute(const std::string& file, hid_t object, const char* name,
                                 hid_t type, const void* value) {
  H5Adelete(object, name);  // none is there the first time
  H5Eclear2(H5E_DEFAULT);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(H5Acreate2(object, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                         H5Aclose);
  if (!attribute || H5Awrite(attribute.get(), type, value) < 0)
    return hdf5_failure(file, fmt::format("attribute {} cannot be written", name));
  return {};
}

}  // namespace

Result<void> write_attribute(const std::string& file, hid_t object, const char* name,
                             std::string_view text) {
  const std::string copy(text);
  const char* pointer = copy.c_str();
  return write_any_attribute(file, object, name, text_type().get(), &pointer);
}

Result<void> write_attribute(const std::string& file, hid_t object, const char* name,
                             std::int64_t number) {
  return write_any_attribute(file, object, name, H5T_NATIVE_INT64, &number);
}

std::string read_attribute(hid_t object, const char* name) {
  const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  const Handle type = text_type();
  char* text = nullptr;
  if (!attribute || H5Aread(attribute.get(), type.get(), &text) < 0 || text == nullptr) {
    H5Eclear2(H5E_DEFAULT);
    return "";
  }
  std::string copy = text;
  H5free_memory(text);
  return copy;
}

Result<void> write_short_attribute(const std::string& file, hid_t object, const char* name,
                                   std::string_view text) {
  const std::string padded = text.empty() ? std::string(1, '\0') : std::string(text);
  return write_any_attribute(file, object, name, fixed_text_type(padded.size()).get(),
                             padded.data());
}

std::string read_short_attribute(hid_t object, const char* name) {
  const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  const Handle type(attribute ? H5Aget_type(attribute.get()) : H5I_INVALID_HID, H5Tclose);
  const Handle space(attribute ? H5Aget_space(attribute.get()) : H5I_INVALID_HID, H5Sclose);
  std::string text;
  if (type && space && H5Tget_class(type.get()) == H5T_STRING &&
      H5Tis_variable_str(type.get()) == 0 && H5Sget_simple_extent_npoints(space.get()) == 1) {
    text.resize(H5Tget_size(type.get()));
    if (H5Aread(attribute.get(), type.get(), text.data()) < 0) text.clear();
  }
  H5Eclear2(H5E_DEFAULT);
  return text.c_str();  // without what it is padded with
}

Handle make_growing(hid_t location, const std::string& path, const Growing& what,
                    std::uint64_t rows) {
  std::vector<hsize_t> now{rows}, most{H5S_UNLIMITED};
  for (const std::uint64_t extent : what.shape) {
    now.push_back(extent);
    most.push_back(extent == 0 ? H5S_UNLIMITED : extent);  // a fixed 0 takes no chunk
  }
  const Handle space(H5Screate_simple(static_cast<int>(now.size()), now.data(), most.data()),
                     H5Sclose);
  const Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const auto chunk = chunk_of(what);
  H5Pset_chunk(properties.get(), static_cast<int>(chunk.size()), chunk.data());
  if (what.checksum) H5Pset_fletcher32(properties.get());
  if (what.fill_with_nan) {
    const double nan = std::nan("");
    H5Pset_fill_value(properties.get(), H5T_NATIVE_DOUBLE, &nan);
  }
  const Handle links = make_link_properties();
  return Handle(H5Dcreate2(location, path.c_str(), what.type.get(), space.get(), links.get(),
                           properties.get(), H5P_DEFAULT),
                H5Dclose);
}

Result<void> write_whole(const std::string& file, hid_t location, const std::string& path,
                         const Handle& type, const std::vector<std::uint64_t>& shape,
                         const void* data, std::uint64_t element_bytes) {
  const std::vector<hsize_t> extents(shape.begin(), shape.end());
  std::uint64_t count = 1;
  for (const hsize_t extent : extents) count *= extent;
  const Handle space(
      extents.empty() ? H5Screate(H5S_SCALAR)
                      : H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
      H5Sclose);
  const Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const bool checksum = count > 0 && !extents.empty() && H5Tis_variable_str(type.get()) <= 0;
  if (checksum) {
    Growing layout;
    layout.shape.assign(shape.begin() + 1, shape.end());
    layout.element_bytes = element_bytes;
    auto chunk = chunk_of(layout);
    chunk[0] = std::min(chunk[0], extents[0]);
    H5Pset_chunk(properties.get(), static_cast<int>(chunk.size()), chunk.data());
    H5Pset_fletcher32(properties.get());
  }
  const Handle links = make_link_properties();
  const Handle dataset(H5Dcreate2(location, path.c_str(), type.get(), space.get(), links.get(),
                                  properties.get(), H5P_DEFAULT),
                       H5Dclose);
  if (!dataset ||
      (count > 0 && H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0))
    return hdf5_failure(file, fmt::format("{} cannot be written", path));
  return {};
}

}  // namespace farcall::staging
