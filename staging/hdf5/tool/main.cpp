// Puts a large result into its file, or takes it out: for runners in other languages, so that they
// need no HDF5, and that what HDF5 does when a disk is full costs one result and not a worker.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/files.h"
#include "staging/hdf5/result_folder.h"

namespace {

using namespace farcall;

constexpr const char* kHelp =
    "Usage: farcall-result-file write FOLDER TASK BYTES [GZIP-LEVEL] < payload   prints its hash\n"
    "       farcall-result-file read FILE > payload\n"
    "       farcall-result-file begin FOLDER TASK BYTES [GZIP-LEVEL] < head       prints a file\n"
    "       farcall-result-file seal FILE TASK                                   prints its hash\n"
    "begin and seal: an array that several processes write into the file's TASK/value.\n"
    "Large results as HDF5 files: docs/data.md. Exit status 1, and why on standard error.\n";
constexpr std::size_t kPieceBytes = 1 << 20;

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= 64 &&
         text.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz-") == std::string::npos;
}

Result<void> read_input(char* into, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::read(STDIN_FILENO, into, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return fail(ErrorCode::kCorrupt, "what should be written ended {} bytes early", size);
    into += got;
    size -= static_cast<std::size_t>(got);
  }
  return {};
}

Result<void> write_output(const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t put = ::write(STDOUT_FILENO, bytes, size);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(ErrorCode::kIo, "nobody reads it: {}", std::strerror(errno));
    bytes += put;
    size -= static_cast<std::size_t>(put);
  }
  return {};
}

Result<void> take_out(const std::string& name) {
  auto file = staging::ResultFile::open(name);
  if (!file) return fail(file.error());
  std::vector<char> piece(kPieceBytes);
  for (std::uint64_t at = 0; at < file->size();) {
    const std::size_t count = std::min<std::uint64_t>(piece.size(), file->size() - at);
    if (auto read = file->read(at, piece.data(), count); !read) return read;
    if (auto written = write_output(piece.data(), count); !written) return written;
    at += count;
  }
  return {};
}

template <class Number>
bool parse(const std::string& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

Result<void> run(const std::vector<std::string>& words) {
  if (words.size() == 2 && words[0] == "read") return take_out(words[1]);
  if (words.size() == 3 && words[0] == "seal" && is_name(words[2])) {
    auto hash = staging::seal_result(words[1], words[2]);
    return hash ? write_output(hash->data(), hash->size()) : fail(hash.error());
  }
  staging::ResultFileOptions options;
  const bool begins = !words.empty() && words[0] == "begin";
  const bool sound = (words.size() == 4 || words.size() == 5) && (begins || words[0] == "write") &&
                     is_name(words[2]) && parse(words[3], options.size) &&
                     (words.size() == 4 || parse(words[4], options.gzip)) && options.gzip >= 0 &&
                     options.gzip <= 9;
  if (!sound) return fail(ErrorCode::kInvalidArgument, "{}", kHelp);
  options.task_id = words[2];
  options.host = host_name();
  if (begins) {
    auto file = staging::begin_result(words[1], options, read_input);
    if (!file) return fail(file.error());
    return write_output(file->c_str(), file->native().size());
  }
  auto hash = staging::keep_result(words[1], options, read_input);
  if (!hash) return fail(hash.error());
  return write_output(hash->data(), hash->size());
}

}  // namespace

int main(int count, char** words) {
  const auto done = run({words + 1, words + count});
  if (!done) std::fprintf(stderr, "%s\n", done.error().message.c_str());
  // Not by way of HDF5's own clean-up, which tries again to write what could not be written.
  ::_exit(done ? 0 : 1);
}
