#include "plain_dataset.h"

#include <cstring>

namespace farcall::staging {

namespace {

constexpr const char* kDtype = "dtype";  // attribute: numpy's name of it

std::size_t put_utf8(std::uint32_t code, char* at) {
  if (code < 0x80) {
    at[0] = static_cast<char>(code);
    return 1;
  }
  const std::size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr unsigned kLead[] = {0, 0xc0, 0xe0, 0xf0};
  at[0] = static_cast<char>(kLead[more] | (code >> (6 * more)));
  for (std::size_t i = 1; i <= more; ++i)
    at[i] = static_cast<char>(0x80 | ((code >> (6 * (more - i))) & 0x3f));
  return more + 1;
}

std::size_t get_utf8(const char* at, std::uint32_t& code) {
  const auto lead = static_cast<unsigned char>(at[0]);
  const std::size_t more = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
  constexpr unsigned kMask[] = {0x7f, 0x1f, 0x0f, 0x07};
  code = lead & kMask[more];
  for (std::size_t i = 1; i <= more; ++i)
    code = (code << 6) | (static_cast<unsigned char>(at[i]) & 0x3f);
  return more + 1;
}

Handle file_type(const DType& dtype) {
  if (dtype.kind != 'U') return type_of(dtype);
  Handle type = fixed_text_type(dtype.size);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

}  // namespace

Result<void> to_utf8(std::vector<char>& bytes, std::uint64_t element_bytes, bool big_endian) {
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += element_bytes) {
    text.assign(element_bytes, '\0');
    std::size_t end = 0;
    for (std::size_t i = 0; i < element_bytes; i += 4) {
      std::uint32_t code = 0;
      std::memcpy(&code, bytes.data() + at + i, 4);
      if (big_endian) code = __builtin_bswap32(code);
      if (code > 0x10ffff) return fail(ErrorCode::kCorrupt, "a text holds no characters");
      end += put_utf8(code, text.data() + end);
    }
    std::memcpy(bytes.data() + at, text.data(), element_bytes);
  }
  return {};
}

void from_utf8(std::vector<char>& bytes, std::uint64_t element_bytes, bool big_endian) {
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += element_bytes) {
    text.assign(bytes.data() + at, element_bytes);
    text.append(4, '\0');  // a damaged one ends within it
    std::size_t from = 0;
    for (std::size_t i = 0; i < element_bytes; i += 4) {
      std::uint32_t code = 0;
      if (from < element_bytes) from += get_utf8(text.data() + from, code);
      if (big_endian) code = __builtin_bswap32(code);
      std::memcpy(bytes.data() + at + i, &code, 4);
    }
  }
}

void PlainDataset::measure(const DType& dtype, const std::vector<std::uint64_t>& shape) {
  dtype_ = dtype;
  bytes_ = dtype.size;
  for (const std::uint64_t extent : shape) bytes_ *= extent;
  if (bytes_ > 0 && !shape.empty()) runs_.emplace(shape, dtype.size);
}

Result<PlainDataset> PlainDataset::make(const std::string& file, hid_t location,
                                        const std::string& path, const DType& dtype,
                                        const std::vector<std::uint64_t>& shape, int gzip) {
  PlainDataset made;
  made.name_ = file + ": " + path;
  made.type_ = file_type(dtype);
  made.measure(dtype, shape);
  const std::vector<hsize_t> extents(shape.begin(), shape.end());
  const Handle space(
      extents.empty() ? H5Screate(H5S_SCALAR)
                      : H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
      H5Sclose);
  const Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER);
  if (made.runs_) {
    const auto& chunk = made.runs_->chunk();
    H5Pset_chunk(properties.get(), static_cast<int>(chunk.size()), chunk.data());
    if (gzip > 0) {
      H5Pset_shuffle(properties.get());
      H5Pset_deflate(properties.get(), static_cast<unsigned>(gzip));
    }
    H5Pset_fletcher32(properties.get());
  }
  const Handle links = make_link_properties();
  made.dataset_ = Handle(H5Dcreate2(location, path.c_str(), made.type_.get(), space.get(),
                                    links.get(), properties.get(), H5P_DEFAULT),
                         H5Dclose);
  if (!made.dataset_) return hdf5_failure(file, path + " cannot be made");
  if (auto named = write_short_attribute(file, made.dataset_.get(), kDtype, dtype.text); !named)
    return fail(named.error());
  return made;
}

Result<PlainDataset> PlainDataset::open(const std::string& file, hid_t location,
                                        const std::string& path) {
  PlainDataset opened;
  opened.name_ = file + ": " + path;
  opened.dataset_ = Handle(H5Dopen2(location, path.c_str(), H5P_DEFAULT), H5Dclose);
  if (!opened.dataset_) return hdf5_damage(file, path + " cannot be opened");
  const Handle space(H5Dget_space(opened.dataset_.get()), H5Sclose);
  opened.type_ = Handle(H5Dget_type(opened.dataset_.get()), H5Tclose);
  std::vector<hsize_t> extents(
      static_cast<std::size_t>(std::max(0, H5Sget_simple_extent_ndims(space.get()))));
  H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
  DType dtype;
  dtype.text = read_short_attribute(opened.dataset_.get(), kDtype);
  if (dtype.text.size() > 1) {
    dtype.kind = dtype.text[1];
    dtype.big_endian = dtype.text[0] == '>';
  }
  dtype.size = static_cast<std::uint32_t>(H5Tget_size(opened.type_.get()));
  if (dtype.size == 0 || (dtype.kind == 'U' && dtype.size % 4 != 0))
    return hdf5_damage(file, path + " has no type");
  opened.measure(dtype, {extents.begin(), extents.end()});
  return opened;
}

std::uint64_t PlainDataset::run_at(std::uint64_t byte) const {
  return runs_ ? runs_->of_element(byte / dtype_.size) : 0;
}

PlainDataset::Extent PlainDataset::extent(std::uint64_t run) const {
  if (!runs_) return {0, bytes_};
  const Runs::Run one = runs_->run(run);
  return {one.first * dtype_.size, one.elements * dtype_.size};
}

namespace {

// What is selected in the file and how it lies in memory.
struct Spaces {
  Handle memory, file;
  Spaces(hid_t dataset, const std::optional<Runs>& runs, std::uint64_t run) {
    file = Handle(H5Dget_space(dataset), H5Sclose);
    if (!runs) {
      memory = Handle(H5Screate(H5S_SCALAR), H5Sclose);
      return;
    }
    const Runs::Run one = runs->run(run);
    memory =
        Handle(H5Screate_simple(static_cast<int>(one.extent.size()), one.extent.data(), nullptr),
               H5Sclose);
    H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, one.start.data(), nullptr, one.extent.data(),
                        nullptr);
  }
};

}  // namespace

Result<void> PlainDataset::write(std::uint64_t run, std::vector<char>& bytes) {
  if (dtype_.kind == 'U')
    if (auto fine = to_utf8(bytes, dtype_.size, dtype_.big_endian); !fine)
      return fail(ErrorCode::kCorrupt, "{}: {}", name_, fine.error().message);
  const Spaces spaces(dataset_.get(), runs_, run);
  if (H5Dwrite(dataset_.get(), type_.get(), spaces.memory.get(), spaces.file.get(), H5P_DEFAULT,
               bytes.data()) < 0)
    return hdf5_failure(name_, "it cannot be written");
  return {};
}

Result<void> PlainDataset::read(std::uint64_t run, std::vector<char>& bytes) const {
  bytes.resize(extent(run).size);
  const Spaces spaces(dataset_.get(), runs_, run);
  if (H5Dread(dataset_.get(), type_.get(), spaces.memory.get(), spaces.file.get(), H5P_DEFAULT,
              bytes.data()) < 0)
    return hdf5_damage(name_, "it cannot be read");
  if (dtype_.kind == 'U') from_utf8(bytes, dtype_.size, dtype_.big_endian);
  return {};
}

}  // namespace farcall::staging
